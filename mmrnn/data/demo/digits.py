"""scikit-learn's scanned handwritten digits, split by the form they were written on."""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image

from mmrnn.data.demo.sprites import demo

HELD = (slice(1415, None), slice(1029, 1415))
"""The held-out digits of both folds. The file names no writers, but it still is in their order: its labels are the same
text of about 130 digits, copied out fourteen times. Each fold holds out three whole forms, about a fifth of the digits:
the twelfth to the last, or the ninth to the eleventh."""


@dataclass(frozen=True)
class Digit:
    """One scanned digit, by its place in the file."""

    index: int
    value: int


@cache
def scans() -> tuple[np.ndarray, tuple[int, ...]]:
    """All scans (`n 8 8`, 0 to 255) and what they show."""
    file = demo("sklearn.datasets", "scikit-learn").load_digits()
    return (file.images * (255 / 16)).astype(np.uint8), tuple(file.target.tolist())


@cache
def handwriting(fold: int = 0) -> tuple[tuple[Digit, ...], tuple[Digit, ...]]:
    """The digits that training sees, and those held out."""
    digits = tuple(Digit(index, value) for index, value in enumerate(scans()[1]))
    held = digits[HELD[fold]]
    return tuple(digit for digit in digits if digit not in held), held


@lru_cache(maxsize=16384)
def stroke(index: int, side: int) -> Image.Image:
    """How much ink lies where (mode `L`), scaled up smoothly to `side` pixels."""
    scan = Image.fromarray(scans()[0][index])
    return scan.resize((side, side), Image.Resampling.BICUBIC).point(lambda ink: min(255, ink * 5 // 4))
