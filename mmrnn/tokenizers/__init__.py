"""Tokenizers: files of the package `tokenizers`, the RWKV World vocabulary, and the small one of the default model."""

from mmrnn.tokenizers.demo import DemoTokenizer
from mmrnn.tokenizers.hf import HFTokenizer
from mmrnn.tokenizers.rwkv_world import RWKVWorldTokenizer

__all__ = [
    "DemoTokenizer",
    "HFTokenizer",
    "RWKVWorldTokenizer",
]
