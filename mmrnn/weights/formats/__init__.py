"""Weight formats, one file for each project or kind of part."""
