"""Projections that a file keeps in one matrix and we keep apart: said by the sign `>` in the name that a map gives."""

from torch import Tensor

SPLITS = {
    "qkv>": ("query", "key", "value"),
    "kv>": ("key", "value"),
}


def split(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`attention.qkv>weight`, whose rows are those of three matrices one after the other, as these three."""
    apart = {}
    for name, value in tensors.items():
        sign = next((sign for sign in SPLITS if sign in name), None)
        if sign is None:
            apart[name] = value
            continue
        for part, rows in zip(SPLITS[sign], value.chunk(len(SPLITS[sign])), strict=True):
            apart[name.replace(sign, f"{part}.")] = rows
    return apart
