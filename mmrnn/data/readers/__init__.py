"""Readers of the data formats that people have."""
