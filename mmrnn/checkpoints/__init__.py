"""Checkpoints of mmrnn: on disk, on the hub, and converted from published weights."""
