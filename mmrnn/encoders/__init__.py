"""What turns images into tokens: towers of timm and open_clip under one policy, encoder-free patches, and states.

timm and open_clip are imported when a tower is built, not before.
"""

from mmrnn.encoders.clip import ClipViT
from mmrnn.encoders.eve import EvePatch
from mmrnn.encoders.fused import Fused
from mmrnn.encoders.intern import InternViT
from mmrnn.encoders.patch import PatchEmbed, Patches
from mmrnn.encoders.state import StateEncoder
from mmrnn.encoders.timm_features import TimmFeatures
from mmrnn.encoders.timm_vit import TimmTower
from mmrnn.encoders.tower import Tower

__all__ = [
    "ClipViT",
    "EvePatch",
    "Fused",
    "InternViT",
    "PatchEmbed",
    "Patches",
    "StateEncoder",
    "TimmFeatures",
    "TimmTower",
    "Tower",
]
