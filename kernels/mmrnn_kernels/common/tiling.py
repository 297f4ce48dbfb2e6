"""Tiles and chunks of the chunked forms on a CPU: sizes, and how rows, positions and heads are divided into them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

TILE_ELEMENTS = 2**16
"""Elements of one input in a tile, few enough for the working memory of a tile to stay in the cache of a core."""

TILE_LENGTH = 256
"""Positions of a tile, if there are as many; a tile of shorter rows takes more heads and rows."""


class TileIndex(NamedTuple):
    """Position and size of one tile."""

    index: tuple[slice, slice, slice]  # into b t h
    shape: tuple[int, int, int]  # rows, heads, chunks
    chunks: slice  # into the states of all chunks


def chunk_length(length: int) -> int:
    """Positions of a chunk for rows of `length` positions, a power of two."""
    if length <= 64:
        return min(16, 1 << (length - 1).bit_length())
    return 32 if length <= 256 else 64


def plan_tiles(batch: int, length: int, heads: int, width: int, chunk: int, device: torch.device) -> list[TileIndex]:
    """Divide `b t h` into tiles, ordered in time. `width` is the larger of key and value size."""
    # Only a CPU has a cache to fit in.
    elements, longest = (TILE_ELEMENTS, TILE_LENGTH) if device.type == "cpu" else (2**10 * TILE_ELEMENTS, length)
    lanes = max(1, elements // (width * min(longest, length)))
    tiles, chunks_before = [], 0
    for rows in split_range(batch, max(1, lanes // heads)):
        for columns in split_range(heads, min(heads, lanes)):
            for span in split_range(length, longest):
                chunks = math.ceil((span.stop - span.start) / chunk)
                shape = (rows.stop - rows.start, columns.stop - columns.start, chunks)
                chunks_after = chunks_before + math.prod(shape)
                tiles.append(TileIndex((rows, span, columns), shape, slice(chunks_before, chunks_after)))
                chunks_before = chunks_after
    return tiles


def split_range(total: int, size: int) -> list[slice]:
    """Split `range(total)` into slices of at most `size`."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def empty_chunk_states(r: Tensor, state: Tensor, chunk: int, save: bool) -> Tensor:
    """Memory for the states that all chunks start from (`n k v`), empty if they are not saved."""
    batch, length, heads, _ = r.shape
    return state.new_empty(batch * heads * -(-length // chunk) if save else 0, *state.shape[-2:])
