"""Names and shapes of single layers."""

from languages import Shapes


def affine(name: str, rows: int, cols: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (rows, cols), **({f"{name}.bias": (rows,)} if bias else {})}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
