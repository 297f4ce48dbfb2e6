"""Configurations: composing, comparing with signatures, making parts of cards. Knows no model."""
