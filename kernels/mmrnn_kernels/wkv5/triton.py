"""WKV-5 on a GPU, in Triton: the kernels of WKV-6, which take a decay without positions too and sum its gradient."""

from ..wkv6.triton import blocked, step, triton

__all__ = ["blocked", "step", "triton"]
