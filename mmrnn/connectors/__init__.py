"""Connectors: encoder tokens to visual tokens of the width of the language model."""

from mmrnn.connectors.compressor import TokenCompressor
from mmrnn.connectors.conv_mlp import ConvMLP
from mmrnn.connectors.frame_pool import FramePool
from mmrnn.connectors.gated import GatedLinear, GatedMLP
from mmrnn.connectors.glu import GLU
from mmrnn.connectors.linear import Identity, Linear
from mmrnn.connectors.merge import Merge
from mmrnn.connectors.mlp import MLP
from mmrnn.connectors.patch_merger import PatchMerger
from mmrnn.connectors.perceiver import Perceiver
from mmrnn.connectors.pool import AdaptivePool, MeanPool, Pool
from mmrnn.connectors.qformer import QFormer
from mmrnn.connectors.qformer_text import TextQFormer
from mmrnn.connectors.resampler import Resampler
from mmrnn.connectors.sequential import Sequential
from mmrnn.connectors.sincos_positions import SinCosPositions
from mmrnn.connectors.special_tokens import BeginEndTokens, CrossAttentionTokens, RowSeparators
from mmrnn.connectors.standardize import Standardize
from mmrnn.connectors.transformer_projector import TransformerProjector

__all__ = [
    "GLU",
    "MLP",
    "AdaptivePool",
    "BeginEndTokens",
    "ConvMLP",
    "CrossAttentionTokens",
    "FramePool",
    "GatedLinear",
    "GatedMLP",
    "Identity",
    "Linear",
    "MeanPool",
    "Merge",
    "PatchMerger",
    "Perceiver",
    "Pool",
    "QFormer",
    "Resampler",
    "RowSeparators",
    "Sequential",
    "SinCosPositions",
    "Standardize",
    "TextQFormer",
    "TokenCompressor",
    "TransformerProjector",
]
