"""Scan orders: the order in which each layer of a recurrent backbone reads the patches of an image.

A scan is a pure function `scan(layer, layout)` that returns a permutation of the row-major patch indices, or None for
the row-major order. A backbone permutes the patches before a block and restores their order after it; CLS, separators
and text keep their positions. Bidirectional and multidirectional scans are those of VisualRWKV (arXiv 2406.13362,
section 3.3), spiral, snake and zigzag those of its ablation.
"""

from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

from mmrnn.types import Layout, Scan, Sequence, implements

Permutation = Int[Tensor, " patches"]


@implements(Scan, reorders=False)
def forward(layer: int, layout: Layout) -> Permutation | None:
    """Read row by row in every layer."""
    return None


@implements(Scan)
def bidirectional(layer: int, layout: Layout) -> Permutation | None:
    """Read forward in even layers and backward in odd layers."""
    return None if layer % 2 == 0 else _axis_order(layout.rows, layout.cols, 1)


@implements(Scan)
def multidirectional(layer: int, layout: Layout) -> Permutation | None:
    """Read rows forward, rows backward, columns downward, columns upward, one in each of four layers in turn."""
    return None if layer % 4 == 0 else _axis_order(layout.rows, layout.cols, layer % 4)


@implements(Scan)
def spiral(layer: int, layout: Layout) -> Permutation | None:
    """Read from the top left corner clockwise inwards, in every layer."""
    return _spiral(layout.rows, layout.cols)


@implements(Scan)
def snake(layer: int, layout: Layout) -> Permutation | None:
    """Read rows alternately from left to right and from right to left, in every layer."""
    return _snake(layout.rows, layout.cols)


@implements(Scan)
def zigzag(layer: int, layout: Layout) -> Permutation | None:
    """Read anti-diagonals alternately upwards and downwards (as in JPEG), in every layer."""
    return _zigzag(layout.rows, layout.cols)


def scan_permutations(scan: Scan | None, depth: int, sequence: Sequence) -> list[Int[Tensor, "b t"] | None]:
    """Return the permutation of the positions of each row for every layer; None: the layer keeps their order.

    Layers with the same order share one tensor.
    """
    if scan is None or not sequence.image_spans:
        return [None] * depth
    images: dict[Layout, list[tuple[int, int]]] = {}
    for span in sequence.image_spans:
        images.setdefault(span.layout, []).append((span.sample, span.start))
    computed: dict[tuple[int | None, ...], Tensor | None] = {}
    permutations = []
    for layer in range(depth):
        orders = {layout: scan(layer, layout) for layout in images}
        key = tuple(None if order is None else hash(tuple(order.tolist())) for order in orders.values())
        if key not in computed:
            computed[key] = _whole_rows(sequence, images, orders)
        permutations.append(computed[key])
    return permutations


def _whole_rows(
    sequence: Sequence, images: dict[Layout, list[tuple[int, int]]], orders: dict[Layout, Permutation | None]
) -> Int[Tensor, "b t"] | None:
    """Permutation of whole rows that applies the order of each layout to its images."""
    if all(order is None for order in orders.values()):
        return None
    b, t = sequence.ids.shape
    permutation = torch.arange(t).repeat(b, 1)
    for layout, order in orders.items():
        if order is not None:
            rows, starts = torch.tensor(images[layout]).unbind(1)
            patches = layout.patch_indices()
            permutation[rows[:, None], starts[:, None] + patches] = starts[:, None] + patches[order]
    return permutation.to(sequence.ids.device)


def _grid(rows: int, cols: int) -> Tensor:
    return torch.arange(rows * cols, device="cpu").view(rows, cols)


@cache
def _axis_order(rows: int, cols: int, direction: int) -> Tensor:
    grid = _grid(rows, cols)
    order = (grid.T if direction >= 2 else grid).flatten()
    return order.flip(0) if direction % 2 else order


@cache
def _spiral(rows: int, cols: int) -> Tensor:
    grid, order = _grid(rows, cols), []
    while grid.numel():
        order += grid[0].tolist()
        # Rotated counter-clockwise, the rest has the next side of the spiral as its first row.
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
    # Rows decrease along even anti-diagonals and increase along odd ones.
    cells.sort(key=lambda cell: (sum(cell), cell[0] if sum(cell) % 2 else -cell[0]))
    return torch.tensor([r * cols + c for r, c in cells], dtype=torch.long)
