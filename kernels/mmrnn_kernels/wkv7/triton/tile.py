"""What the kernels share: C positions of one head and what they do to each other. The maths is in ../README.md.

At level B = 1, 2, 4, ..., C/2 a pair of positions lies in the two halves of one block of 2B, and every position reaches
up to the middle of its block.
"""

import triton
import triton.language as tl

from ...wkv6.triton.tile import dot, pairs, reached


@triton.jit
def over(mask, g, FULL: tl.constexpr):
    """Products of the decays that each row of the mask names: sums of logarithms, all of one sign."""
    return tl.exp2(tl.dot(mask.to(tl.float32), g, input_precision=FULL))


@triton.jit
def level(first, second, g, i, B: tl.constexpr, FULL: tl.constexpr):
    """Reads of the right halves and writes of the left ones, up to the middle; and the decays that are on the way."""
    way = over(reached(i, B), g, FULL)
    return tl.where(((i & B) != 0)[:, None], first, second) * way, way


@triton.jit
def insides(r, k, a, b, g, i, LEVELS: tl.constexpr, PREC: tl.constexpr, FULL: tl.constexpr):
    """(1 - A_ab)^-1; A_ak below the diagonal and A_rb, turned, above it; A_rk. `r` comes times its own decay.

    Of a block the inverse is that of its right half, times A_ab between the halves, times that of its left one: sums of
    the recurrence itself, where powers of A_ab would cancel.
    """
    below = i[:, None] > i[None, :]
    inverse = (i[:, None] == i[None, :]).to(tl.float32)
    mixed = tl.zeros_like(inverse)
    last = tl.zeros_like(inverse)
    for step in tl.static_range(LEVELS):
        near = pairs(i, 1 << step)
        x, _ = level(a, b, g, i, 1 << step, FULL)
        z, _ = level(r, k, g, i, 1 << step, FULL)
        met = tl.where(near & below, dot(x, tl.trans(x), PREC), 0.0)
        between = tl.dot(tl.dot(inverse, met, input_precision=FULL), inverse, input_precision=FULL)
        inverse += between
        mixed = tl.where(near, dot(x, tl.trans(z), PREC), mixed)
        last = tl.where(near & below, dot(z, tl.trans(z), PREC), last)
    return inverse, mixed, last
