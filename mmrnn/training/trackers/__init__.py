"""Records of a run: console and trackers."""
