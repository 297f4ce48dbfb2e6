"""Layers that several kinds of parts share."""
