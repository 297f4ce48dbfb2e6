"""Projections that a file keeps in one matrix and we keep apart: said by the sign `>` in the name that a map gives."""

import re

import torch
from torch import Tensor

SPLITS = {
    "qkv>": ("query", "key", "value"),
    "kv>": ("key", "value"),
}


THIRD = re.compile(r"(.*?)query\.(weight|bias)")


def join(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The way back: three matrices of one projection as one, where they have as many rows each."""
    joined = dict(tensors)
    for name in tensors:
        match = THIRD.fullmatch(name)
        three = [] if match is None else [f"{match[1]}{part}.{match[2]}" for part in SPLITS["qkv>"]]
        if three and len({tensors[one].shape if one in tensors else None for one in three}) == 1:
            joined[f"{match[1]}qkv>{match[2]}"] = torch.cat([joined.pop(one) for one in three])
    return joined


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
