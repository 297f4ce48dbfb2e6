"""Scans: in which order each layer of a recurrent backbone reads the patches of an image.

A scan is a pure function `scan(layer, layout)` that answers with a permutation of the row-major patch numbers, or
None for the order they are in. A backbone applies it before a block and undoes it after, so only patches move; CLS,
separators and text keep their places. Bidirectional and multidirectional are those of VisualRWKV (arXiv 2406.13362,
section 3.3); spiral, snake and zigzag those of its scan study.
"""

from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

from mmrnn.types import Layout, Scan, Sequence, implements

Order = Int[Tensor, " patches"]


@implements(Scan, reorders=False)
def forward(layer: int, layout: Layout) -> Order | None:
    """Every layer reads row by row."""
    return None


@implements(Scan)
def bidirectional(layer: int, layout: Layout) -> Order | None:
    """Even layers read forward, odd layers backward."""
    return None if layer % 2 == 0 else _turned(layout.rows, layout.cols, 1)


@implements(Scan)
def multidirectional(layer: int, layout: Layout) -> Order | None:
    """Four layers in turn: rows forward, rows backward, columns downward, columns upward."""
    return None if layer % 4 == 0 else _turned(layout.rows, layout.cols, layer % 4)


@implements(Scan)
def spiral(layer: int, layout: Layout) -> Order | None:
    """Every layer reads from the top left corner inwards, clockwise."""
    return _spiral(layout.rows, layout.cols)


@implements(Scan)
def snake(layer: int, layout: Layout) -> Order | None:
    """Every layer reads the rows in turn from left to right and from right to left."""
    return _snake(layout.rows, layout.cols)


@implements(Scan)
def zigzag(layer: int, layout: Layout) -> Order | None:
    """Every layer reads the anti-diagonals, up and down in turn (as JPEG does)."""
    return _zigzag(layout.rows, layout.cols)


def scan_permutations(scan: Scan | None, depth: int, sequence: Sequence) -> list[Int[Tensor, "b t"] | None]:
    """For each layer the position that is read at each place, or None where nothing moves.

    Layers that read alike share one tensor.
    """
    if scan is None or not sequence.image_spans:
        return [None] * depth
    layouts = {block.layout: [] for block in sequence.image_spans}
    for block in sequence.image_spans:
        layouts[block.layout].append((block.sample, block.start))
    known: dict[tuple[int | None, ...], Tensor | None] = {}
    answer = []
    for layer in range(depth):
        moves = {layout: scan(layer, layout) for layout in layouts}
        key = tuple(None if move is None else hash(tuple(move.tolist())) for move in moves.values())
        if key not in known:
            known[key] = _place(sequence, layouts, moves)
        answer.append(known[key])
    return answer


def _place(sequence: Sequence, layouts: dict[Layout, list], moves: dict[Layout, Tensor | None]) -> Tensor | None:
    if all(move is None for move in moves.values()):
        return None
    b, t = sequence.ids.shape
    order = torch.arange(t).repeat(b, 1)
    for layout, move in moves.items():
        if move is not None:
            rows, starts = torch.tensor(layouts[layout]).unbind(1)
            patches = layout.patch_indices()
            order[rows[:, None], starts[:, None] + patches] = starts[:, None] + patches[move]
    return order.to(sequence.ids.device)


def _grid(rows: int, cols: int) -> Tensor:
    return torch.arange(rows * cols, device="cpu").view(rows, cols)


@cache
def _turned(rows: int, cols: int, turn: int) -> Tensor:
    grid = _grid(rows, cols)
    order = (grid.T if turn >= 2 else grid).flatten()
    return order.flip(0) if turn % 2 else order


@cache
def _spiral(rows: int, cols: int) -> Tensor:
    grid, order = _grid(rows, cols), []
    while grid.numel():
        order += grid[0].tolist()
        # The rest turned counter-clockwise has the next side of the spiral as its first row.
        grid = grid[1:].rot90()
    return torch.tensor(order, dtype=torch.long)


@cache
def _snake(rows: int, cols: int) -> Tensor:
    grid = _grid(rows, cols)
    grid[1::2] = grid[1::2].flip(1)
    return grid.flatten()


@cache
def _zigzag(rows: int, cols: int) -> Tensor:
    cells = [(r, c) for r in range(rows) for c in range(cols)]
    # On even anti-diagonals the row number falls, on odd ones it grows.
    cells.sort(key=lambda cell: (sum(cell), cell[0] if sum(cell) % 2 else -cell[0]))
    return torch.tensor([r * cols + c for r, c in cells], dtype=torch.long)
