"""Language models: linear RNNs, transformers, and hooks that add layers or weights to their blocks."""

from mmrnn.backbones.cross_attention import GatedCrossAttention
from mmrnn.backbones.expert import MLPExpert, VisualExpert
from mmrnn.backbones.glm import GLM
from mmrnn.backbones.hf import HFDecoder, HFEncoderDecoder
from mmrnn.backbones.hook import HookModule
from mmrnn.backbones.hybrid import GatedAttention, GatedDeltaNet, Hybrid, RWKV7Mixer
from mmrnn.backbones.mamba import Mamba
from mmrnn.backbones.no_backbone import NoBackbone
from mmrnn.backbones.rwkv5 import RWKV5
from mmrnn.backbones.rwkv6 import RWKV6
from mmrnn.backbones.rwkv7 import RWKV7
from mmrnn.backbones.tiny_attention import TinyAttention
from mmrnn.backbones.transformer import Transformer
from mmrnn.backbones.visual_mix import VisualChannelMix

__all__ = [
    "GLM",
    "RWKV5",
    "RWKV6",
    "RWKV7",
    "GatedAttention",
    "GatedCrossAttention",
    "GatedDeltaNet",
    "HFDecoder",
    "HFEncoderDecoder",
    "HookModule",
    "Hybrid",
    "MLPExpert",
    "Mamba",
    "NoBackbone",
    "RWKV7Mixer",
    "TinyAttention",
    "Transformer",
    "VisualChannelMix",
    "VisualExpert",
]
