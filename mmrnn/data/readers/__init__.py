"""Readers of data formats."""

from mmrnn.data.readers.llava import LLaVAJson

__all__ = ["LLaVAJson"]
