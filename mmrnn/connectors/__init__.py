"""What stands between an encoder and a language model: encoder tokens in, visual tokens out."""

from mmrnn.connectors.chain import Chain
from mmrnn.connectors.gated import GatedLinear, GatedMLP
from mmrnn.connectors.linear import Identity, Linear
from mmrnn.connectors.merge import Merge
from mmrnn.connectors.mlp import MLP
from mmrnn.connectors.pool import MeanPool, Pool
from mmrnn.connectors.positions import Positions
from mmrnn.connectors.qformer import QFormer
from mmrnn.connectors.standardize import Standardize

__all__ = [
    "MLP",
    "Chain",
    "GatedLinear",
    "GatedMLP",
    "Identity",
    "Linear",
    "MeanPool",
    "Merge",
    "Pool",
    "Positions",
    "QFormer",
    "Standardize",
]
