"""Records of a run: console, log file."""
