"""Batching: micro-batches in order, packed without padding, or of samples of similar lengths."""

from mmrnn.data.batching.auto import Auto
from mmrnn.data.batching.bucketed import Bucketed
from mmrnn.data.batching.packed import Packed
from mmrnn.data.batching.plain import Plain

__all__ = ["Auto", "Bucketed", "Packed", "Plain"]
