"""Record files: many records in one file, read by their position; formats, and the index of a file."""
