"""WKV-5 on a GPU: the Triton kernels of WKV-6, which also take one decay for all positions and sum its gradient."""

from ..wkv6.triton import unavailable_reason
from ..wkv6.triton import wkv6_triton as wkv5_triton
from ..wkv6.triton import wkv6_triton_step as wkv5_triton_step

__all__ = ["unavailable_reason", "wkv5_triton", "wkv5_triton_step"]
