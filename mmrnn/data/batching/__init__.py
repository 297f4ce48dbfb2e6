"""Batching: micro-batches in order, packed without padding, or of samples of similar lengths."""

from mmrnn.data.batching.plain import Plain

__all__ = ["Plain"]
