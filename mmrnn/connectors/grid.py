"""Checks of layout and width, and the patch grid inside a row of tokens."""

from jaxtyping import Float
from torch import Tensor

from mmrnn.types import Layout


def split_prefix_grid_suffix(
    tokens: Float[Tensor, "m n e"], layout: Layout | None, part: str, *, frames: bool = False
) -> tuple[Float[Tensor, "m p e"], Float[Tensor, "m rows cols e"], Float[Tensor, "m s e"]]:
    """Split tokens into those before the patch grid, the grid, and those after it.

    Args:
        part: name for error messages.
        frames: the part reads grids of several frames below one another.

    Raises:
        ValueError: the layout is missing, has several frames that the part does not read, row separators, no patches,
            or another number of tokens.
    """
    if layout is None:
        raise ValueError(f"{part} needs the layout of its {tokens.shape[1]} tokens: pass a layout")
    require_grid(layout, part, frames=frames)
    if layout.tokens != tokens.shape[1]:
        raise ValueError(
            f"{part} got {tokens.shape[1]} tokens, but their layout has {layout.tokens} "
            f"({layout.prefix} + {layout.rows} x {layout.cols} + {layout.suffix})"
        )
    prefix, grid, suffix = tokens.split([layout.prefix, layout.rows * layout.cols, layout.suffix], dim=1)
    return prefix, grid.unflatten(1, (layout.rows, layout.cols)), suffix


def require_grid(layout: Layout, part: str, *, frames: bool = False) -> None:
    """Require a patch grid without separators between its rows, and of one frame unless `frames` is set.

    Raises:
        ValueError: there is none.
    """
    if layout.separators:
        raise ValueError(f"{part} cannot join patches across {layout.separators} row separators; add them after it")
    if not layout.rows * layout.cols:
        raise ValueError(f"{part} needs patches, but the layout has none ({layout.rows} x {layout.cols})")
    if layout.frames > 1 and not frames:
        raise ValueError(f"{part} joins patches of one frame, and there are {layout.frames}; put FramePool before it")


def require_same_width(part: str, width: int, out_dim: int | None) -> int:
    """Return `width`, the output width of a part that cannot change it.

    Raises:
        ValueError: another width is asked for.
    """
    if out_dim not in (None, width):
        raise ValueError(f"{part} emits width {width} and cannot make it {out_dim}; chain a Linear after it")
    return width
