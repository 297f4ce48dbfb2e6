"""Folders of sweeps: which sweep one belongs to, how far its jobs are, and a table of their results."""
