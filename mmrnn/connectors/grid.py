"""The image in the tokens: taken apart into prefix, grid and suffix by those parts that need the grid."""

from jaxtyping import Float
from torch import Tensor

from mmrnn.types import Layout


def split_prefix_grid_suffix(
    tokens: Float[Tensor, "m n e"], layout: Layout | None, part: str
) -> tuple[Float[Tensor, "m p e"], Float[Tensor, "m rows cols e"], Float[Tensor, "m s e"]]:
    """The tokens before the grid, the grid, and the tokens after it.

    Raises:
        ValueError: the layout is missing, has row separators, or is that of another number of tokens.
    """
    if layout is None:
        raise ValueError(f"{part} has to know how its {tokens.shape[1]} tokens lie: pass a layout")
    check_rows(layout, part)
    if layout.tokens != tokens.shape[1]:
        raise ValueError(
            f"{part} got {tokens.shape[1]} tokens, but their layout has {layout.tokens} "
            f"({layout.prefix} + {layout.rows} x {layout.cols} + {layout.suffix})"
        )
    prefix, grid, suffix = tokens.split([layout.prefix, layout.rows * layout.cols, layout.suffix], dim=1)
    return prefix, grid.unflatten(1, (layout.rows, layout.cols)), suffix


def check_rows(layout: Layout, part: str) -> None:
    """Raises ValueError where there is no grid, or separators stand between its rows."""
    if layout.separators:
        raise ValueError(f"{part} cannot join patches across {layout.separators} row separators; add them behind it")
    if not layout.rows * layout.cols:
        raise ValueError(f"{part} needs patches, but the layout has none ({layout.rows} x {layout.cols})")


def require_same_width(part: str, width: int, out_dim: int | None) -> int:
    """`width`, for a part that has no say in it.

    Raises:
        ValueError: another width is asked for.
    """
    if out_dim not in (None, width):
        raise ValueError(f"{part} emits width {width} and cannot make it {out_dim}; chain a Linear after it")
    return width
