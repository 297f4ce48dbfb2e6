"""One image through ViT-L/14 at 336 pixels: timm's own forward, and the same tower with packed weights."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mmrnn.bench.timing import BenchConfig, Peaks, Row, Work, compare
from mmrnn.encoders import TimmViT

TIMM, PACKED = "timm", "mmrnn packed"


@torch.no_grad()
def measure(effort: BenchConfig) -> Iterator[Row]:
    sizes = {"size": 32, "depth": 2, "arch": {"patch_size": 8, "embed_dim": 64, "num_heads": 2}} if effort.quick else {}
    best = Peaks.measure(effort)
    for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        plain, packed = (TimmViT(dtype=dtype, prepack_weights=packed, **sizes).eval() for packed in (False, True))
        packed.load_state_dict(plain.state_dict())
        image = torch.randn(1, 3, *plain.image.size)
        sides = {TIMM: read(plain, image), PACKED: read(packed, image)}
        tokens = plain.layout(*plain.image.size).tokens + 1
        weights = sum(p.numel() for p in plain.trunk.blocks.parameters() if p.dim() == 2)
        attention = 4 * len(plain.trunk.blocks) * tokens**2 * plain.width
        flops = 2 * weights * tokens + attention
        for row in compare("tower", f"ViT-L/14, {plain.image.size[0]} pixels, {name}", sides, effort):
            yield Row(**{**vars(row), "share": flops / row.seconds / getattr(best, name)})


def read(tower: TimmViT, image: Tensor) -> Work:
    return lambda: tower(image)
