"""Fixed 2-D sine and cosine positions (MoCo v3, arXiv 2104.02057)."""

import torch
from jaxtyping import Float, Real
from torch import Tensor


def sincos_2d(
    rows: Real[Tensor, " rows"], cols: Real[Tensor, " cols"], frequencies: Float[Tensor, " f"]
) -> Float[Tensor, "rows cols 4*f"]:
    """Compute the position table of a grid: sine and cosine of the row, then sine and cosine of the column.

    Args:
        rows: coordinate of each row.
        cols: coordinate of each column.
        frequencies: in radians per unit of the coordinates.
    """
    shape = len(rows), len(cols), -1
    row, col = (_sincos(coordinates, frequencies) for coordinates in (rows, cols))
    return torch.cat([row[:, None].expand(shape), col[None].expand(shape)], dim=2)


def geometric_frequencies(count: int, base: float = 10000.0) -> Float[Tensor, " count"]:
    """Compute `base ** (-i / count)`, the frequencies of the Transformer (arXiv 1706.03762)."""
    return base ** -(torch.arange(count) / count)


def _sincos(coordinates: Real[Tensor, " n"], frequencies: Float[Tensor, " f"]) -> Float[Tensor, "n 2*f"]:
    angle = coordinates[:, None] * frequencies
    return torch.cat([angle.sin(), angle.cos()], dim=1)
