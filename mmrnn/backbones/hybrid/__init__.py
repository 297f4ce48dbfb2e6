"""Backbones from a pattern of layers: recurrences, attention, or both in turn."""

from mmrnn.backbones.hybrid.attention import GatedAttention
from mmrnn.backbones.hybrid.gated_delta import GatedDeltaNet
from mmrnn.backbones.hybrid.model import Hybrid
from mmrnn.backbones.hybrid.rwkv7_mixer import RWKV7Mixer

__all__ = ["GatedAttention", "GatedDeltaNet", "Hybrid", "RWKV7Mixer"]
