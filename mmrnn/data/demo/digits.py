"""Scanned handwritten digits of scikit-learn, split by the form that they were written on."""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image

from mmrnn.data.demo.sprites import demo_package

HELD_OUT = (slice(1415, None), slice(1029, 1415))
"""Held-out digits of each fold. The file does not name the writers, but is ordered by them: its labels are one text of
about 130 digits, copied fourteen times. Each fold holds out three whole forms, about a fifth of the digits: the twelfth
to the last, or the ninth to the eleventh."""


@dataclass(frozen=True)
class Digit:
    """A scanned digit: its index in the file, and its value."""

    index: int
    value: int


@cache
def scans() -> tuple[np.ndarray, tuple[int, ...]]:
    """Return all scans (`n 8 8`, 0 to 255) and their labels."""
    file = demo_package("sklearn.datasets", "scikit-learn").load_digits()
    return (file.images * (255 / 16)).astype(np.uint8), tuple(file.target.tolist())


@cache
def split_digits(fold: int = 0) -> tuple[tuple[Digit, ...], tuple[Digit, ...]]:
    """Return the digits of the training split, and the held-out ones of a fold."""
    digits = tuple(Digit(index, value) for index, value in enumerate(scans()[1]))
    held_out = digits[HELD_OUT[fold]]
    return tuple(digit for digit in digits if digit not in held_out), held_out


@lru_cache(maxsize=16384)
def digit_mask(index: int, side: int) -> Image.Image:
    """Return the ink of a scan as a mask (mode `L`), upscaled to `side` pixels."""
    scan = Image.fromarray(scans()[0][index])
    return scan.resize((side, side), Image.Resampling.BICUBIC).point(lambda ink: min(255, ink * 5 // 4))
