"""Checkpoints on disk and on the hub."""
