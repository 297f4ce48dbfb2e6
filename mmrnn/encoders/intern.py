"""InternViT (InternVL, arXiv 2312.14238)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.encoders.timm_vit import TimmViT
from mmrnn.encoders.tower import PosInterp, Recompute, Resize, TrunkDtype
from mmrnn.types import FiniteFloat, PositiveFloat, PositiveInt

EPS = 1e-6
"""Of every RMS norm."""


class HeadsNorm(nn.Module):
    """RMS norm of queries or keys over the channels of all heads together; that of timm is per head."""

    def __init__(self, heads: int, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads * size))

    def forward(self, x: Float[Tensor, "m h n k"]) -> Float[Tensor, "m h n k"]:
        """Normalise each token."""
        scale = (x.float().square().mean((1, 3), keepdim=True) + EPS).rsqrt()
        return (x * scale).to(x.dtype) * self.weight.view(x.shape[1], 1, x.shape[3])


class InternViT(TimmViT):
    """Vision transformer of timm with RMS norms, layer scale, and `HeadsNorm` on queries and keys.

    The defaults are InternViT-6B-448px-V1-2, the tower of VILA-1.5-40B, with 45 of the 48 blocks it was trained with.

    Args:
        size: height and width of the images.
        ffn: width inside the MLPs.
        layer: block whose output is emitted, -1: the last, -2: the one before.
    """

    def __init__(
        self,
        *,
        size: PositiveInt = 448,
        patch: PositiveInt = 14,
        width: PositiveInt = 3200,
        depth: PositiveInt = 45,
        heads: PositiveInt = 25,
        ffn: PositiveInt = 12800,
        layer: int = -1,
        pos_interp: PosInterp = "antialias",
        resize: Resize = "squash",
        mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.485, 0.456, 0.406),
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225),
        dtype: TrunkDtype | None = None,
        grad_checkpointing: Recompute = 0,
    ):
        super().__init__(
            name="vit_huge_patch14_224",
            size=size,
            layer=layer,
            depth=depth,
            pos_interp=pos_interp,
            resize=resize,
            mean=mean,
            std=std,
            dtype=dtype,
            grad_checkpointing=grad_checkpointing,
            arch={
                "patch_size": patch,
                "embed_dim": width,
                "num_heads": heads,
                "mlp_ratio": ffn / width,
                "init_values": 0.1,  # of the layer scale of both branches
                "qkv_bias": False,
                "norm_layer": "rmsnorm",
            },
        )
        for block in self.trunk.blocks:
            trunk_dtype = block.attn.qkv.weight.dtype
            block.attn.q_norm, block.attn.k_norm = (HeadsNorm(heads, width // heads).to(trunk_dtype) for _ in range(2))
