"""What turns pictures into tokens: towers of timm and open_clip under one policy, and encoder-free patches.

timm and open_clip are imported when a tower is built, not before.
"""

from mmrnn.encoders.clip import ClipViT
from mmrnn.encoders.maps import TimmMaps
from mmrnn.encoders.patch import PatchEmbed, Patches
from mmrnn.encoders.pretrained import fetch
from mmrnn.encoders.timm import TimmTower
from mmrnn.encoders.tower import Tower

__all__ = ["ClipViT", "PatchEmbed", "Patches", "TimmMaps", "TimmTower", "Tower", "fetch"]
