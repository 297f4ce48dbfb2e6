"""Shared pieces of the Triton backends. Only `primitives` imports Triton."""
