"""The file format, and coding of pictures to files and back."""
