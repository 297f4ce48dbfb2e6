"""WKV-5 on the CPU: the native code of WKV-6, which also takes one decay for all positions and sums its gradient."""

from ..wkv6.cpu import unavailable_reason
from ..wkv6.cpu import wkv6_cpu as wkv5_cpu

__all__ = ["unavailable_reason", "wkv5_cpu"]
