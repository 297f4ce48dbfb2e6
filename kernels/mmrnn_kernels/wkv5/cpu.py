"""WKV-5 on the CPU by native code: that of WKV-6, which takes a decay without positions too and sums its gradient."""

from ..wkv6.cpu import blocked, cpu

__all__ = ["blocked", "cpu"]
