"""Vision tower: one image through ViT-L/14 at 336 pixels, with timm's forward pass and with prepacked weights."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from mmrnn.bench.timing import BenchConfig, Peaks, Row, compare
from mmrnn.encoders import TimmViT

TIMM, PACKED = "timm", "mmrnn packed"


@torch.no_grad()
def measure(config: BenchConfig) -> Iterator[Row]:
    """Time one image, in fp32 and bf16."""
    sizes = {"size": 32, "depth": 2, "arch": {"patch_size": 8, "embed_dim": 64, "num_heads": 2}} if config.quick else {}
    peaks = Peaks.measure(config)
    for name, dtype, peak in (("fp32", "float32", peaks.fp32), ("bf16", "bfloat16", peaks.bf16)):
        plain, packed = (TimmViT(dtype=dtype, prepack_weights=prepack, **sizes).eval() for prepack in (False, True))
        packed.load_state_dict(plain.state_dict())
        image = torch.randn(1, 3, *plain.image.size)
        contenders = {TIMM: lambda t=plain, x=image: t(x), PACKED: lambda t=packed, x=image: t(x)}
        flops = tower_flops(plain)
        for row in compare("tower", f"ViT-L/14, {plain.image.size[0]} pixels, {name}", contenders, config):
            yield replace(row, peak_fraction=flops / row.seconds / peak)


def tower_flops(tower: TimmViT) -> int:
    """Return the floating-point operations of one image: products with weights, and attention."""
    tokens = tower.layout(*tower.image.size).tokens + 1  # the class token
    weights = sum(parameter.numel() for parameter in tower.trunk.blocks.parameters() if parameter.dim() == 2)
    attention = 4 * len(tower.trunk.blocks) * tokens**2 * tower.width
    return 2 * weights * tokens + attention
