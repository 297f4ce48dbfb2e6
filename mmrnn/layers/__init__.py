"""Layers that parts of several kinds share."""
