"""Pictures and their colors, and files."""
