"""Encoders: vision towers of timm and open_clip, encoder-free patches, and state vectors.

timm and open_clip are imported when a tower is built.
"""

from mmrnn.encoders.eve import EVEPatchEmbed
from mmrnn.encoders.frames import FrameEncoder
from mmrnn.encoders.fused import FusedEncoder
from mmrnn.encoders.intern import InternViT
from mmrnn.encoders.open_clip_vit import OpenCLIPViT
from mmrnn.encoders.patch import PatchEmbed, Patchify
from mmrnn.encoders.qwen_vit import QwenViT
from mmrnn.encoders.recurrent import RecurrentEncoder
from mmrnn.encoders.state import StateEncoder
from mmrnn.encoders.tiled import TiledEncoder
from mmrnn.encoders.tilings import BestGrid, Quarters, Regions
from mmrnn.encoders.timm_features import TimmFeatures
from mmrnn.encoders.timm_vit import TimmViT
from mmrnn.encoders.tower import Tower
from mmrnn.encoders.whisper import WhisperEncoder

__all__ = [
    "BestGrid",
    "EVEPatchEmbed",
    "FrameEncoder",
    "FusedEncoder",
    "InternViT",
    "OpenCLIPViT",
    "PatchEmbed",
    "Patchify",
    "Quarters",
    "QwenViT",
    "RecurrentEncoder",
    "Regions",
    "StateEncoder",
    "TiledEncoder",
    "TimmFeatures",
    "TimmViT",
    "Tower",
    "WhisperEncoder",
]
