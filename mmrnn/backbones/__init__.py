"""Language models: recurrent ones, and the transformers that they are compared with."""

from mmrnn.backbones.rwkv5 import RWKV5
from mmrnn.backbones.rwkv6 import RWKV6
from mmrnn.backbones.rwkv7 import RWKV7
from mmrnn.backbones.transformer import Transformer

__all__ = ["RWKV5", "RWKV6", "RWKV7", "Transformer"]
