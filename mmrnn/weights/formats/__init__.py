"""Weight formats of other projects, one file for each."""
