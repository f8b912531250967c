"""Data sets of pictures, and their transforms."""
