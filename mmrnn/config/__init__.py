"""Configurations: composition, validation, instantiation of parts. Knows no model."""
