"""FusedEncoder projections: `qkv>` and `kv>` in a name of ours mark a matrix that is split into several of ours."""

import re

import torch

from mmrnn.weights.format import Tensors

SPLITS = {
    "qkv>": ("query", "key", "value"),
    "kv>": ("key", "value"),
}
"""Mark -> names of the matrices, in the order of their rows."""

QUERY = re.compile(r"(.*?)query\.(weight|bias)")


def join(tensors: Tensors) -> Tensors:
    """Inverse of `split` for query, key and value of equal shape."""
    joined = dict(tensors)
    for query in tensors:
        match = QUERY.fullmatch(query)
        names = [] if match is None else [f"{match[1]}{part}.{match[2]}" for part in SPLITS["qkv>"]]
        if names and len({tensors[one].shape if one in tensors else None for one in names}) == 1:
            joined[f"{match[1]}qkv>{match[2]}"] = torch.cat([joined.pop(one) for one in names])
    return joined


def split(tensors: Tensors) -> Tensors:
    """Split each marked matrix (`attention.qkv>weight`) by rows."""
    separate = {}
    for name, value in tensors.items():
        mark = next((mark for mark in SPLITS if mark in name), None)
        if mark is None:
            separate[name] = value
            continue
        for part, rows in zip(SPLITS[mark], value.chunk(len(SPLITS[mark])), strict=True):
            separate[name.replace(mark, f"{part}.")] = rows
    return separate
