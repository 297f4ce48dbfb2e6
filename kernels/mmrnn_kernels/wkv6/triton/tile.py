"""What the kernels share: C positions of one head, and the pairs inside them sorted by level. README.md has the maths.

At level B = 1, 2, 4, ..., C/2 a pair of positions lies in the two halves of one block of 2B. Every position reaches up
to the middle of its block, so one matrix of decays serves both sides of all pairs of a level.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2_HIGH = tl.constexpr(0.693145751953125)  # of 15 bits, so that small integers times it are exact
LN2_LOW = tl.constexpr(1.4286068203094172e-06)


@triton.jit
def dot(a, b, PREC: tl.constexpr):
    """`a @ b`, sums in fp32; `PREC` is what the factors are rounded to."""
    if PREC == "bf16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    elif PREC == "bf16 emulated":  # the interpreter multiplies the bits of bf16 as if they were integers
        return tl.dot(a.to(tl.bfloat16).to(tl.float32), b.to(tl.bfloat16).to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision=PREC)


@triton.jit
def place(bounds, length, n, PACKED: tl.constexpr):
    """Where a sequence begins and where it ends."""
    if PACKED:
        first = tl.load(bounds + n).to(tl.int64)
        last = tl.load(bounds + n + 1).to(tl.int64)
    else:
        first = n.to(tl.int64) * length
        last = first + length
    return first, last


@triton.jit
def slot(first, span, n):
    """Of the first piece of a sequence, which is followed by those of the others.

    Each piece of `span` positions has its own, whatever the lengths of the sequences: `positions // span + sequences`.
    """
    return first // span + n


@triton.jit
def fresh(i, turn, TARGET: tl.constexpr):
    """`i`, of which the compiler does not know that it is the same in every turn of a loop.

    Else it computes the masks of all levels ahead of the loop and keeps them in registers that are not there.
    """
    if TARGET == "cuda":
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r,r", [i, turn], tl.int32, is_pure=True, pack=1)
    else:
        return i


@triton.jit
def logs(w):
    """log2 of the decay. Above 10 the decay is 0 in any precision, and exp(w) may be infinite."""
    return tl.exp2(tl.where(w > 10.0, 10.0, w) * LOG2E) * -LOG2E


@triton.jit
def exp(x):
    """e^x as exact as fp32 is. `exp2(x log2(e))` rounds the exponent, and is off by as much more as x is large."""
    n = tl.floor(x * LOG2E + 0.5)
    rest = (x - n * LN2_HIGH) - n * LN2_LOW
    return tl.exp2(n) * tl.exp2(rest * LOG2E)


@triton.jit
def decay(w):
    """`keep` and `change`, together exp(-exp(w)), and exp(w).

    Near one, `s * keep + s * change` is s and what it loses: so products are rounded and not the decay, whose rounding
    would repeat at every position. A small decay is all in `change`: as a difference from one it would be inexact.
    """
    w = tl.where(w > 10.0, 10.0, w)  # above 104 or below -100 nothing is left or lost, and NaN stays
    x = exp(tl.where(w < -100.0, -100.0, w))
    x = tl.where(x > 104.0, 104.0, x)
    near = x < 0.5
    series = 1 - x * (1 / 6) * (1 - x * (1 / 7))
    series = 1 - x * (1 / 4) * (1 - x * (1 / 5) * series)
    series = 1 - x * (1 / 2) * (1 - x * (1 / 3) * series)
    return tl.where(near, 1.0, 0.0), tl.where(near, -x * series, exp(-x)), x


@triton.jit
def split(g, CONSTANT: tl.constexpr, PREC: tl.constexpr):
    """A matrix as the sum of two that `total` can multiply by zeros and ones without losing more than 2^-17 of it."""
    if CONSTANT or PREC == "ieee":
        return g, g
    else:
        high = g.to(tl.bfloat16)
        low = (g - high.to(tl.float32)).to(tl.bfloat16)
        if PREC == "bf16 emulated":
            return high.to(tl.float32), low.to(tl.float32)
        else:
            return high, low


@triton.jit
def total(mask, high, low, PREC: tl.constexpr):
    """`mask @ (high + low)`."""
    if PREC == "ieee":
        return tl.dot(mask.to(tl.float32), high, input_precision=PREC)
    elif PREC == "bf16 emulated":
        return tl.dot(mask.to(tl.float32), high + low, input_precision="ieee")
    else:
        return tl.dot(mask.to(tl.bfloat16), low, tl.dot(mask.to(tl.bfloat16), high))


@triton.jit
def right(i, B: tl.constexpr):
    """Positions in the right halves of blocks of 2B, as a column."""
    return ((i & B) != 0)[:, None]


@triton.jit
def pairs(i, B: tl.constexpr):
    """Pairs of level B."""
    apart = i[:, None] ^ i[None, :]
    return (apart >= B) & (apart < 2 * B)


@triton.jit
def reached(i, B: tl.constexpr):
    """[i, j]: j lies between i and the middle of the block of 2B that i is in."""
    j = i[None, :]
    i = i[:, None]
    return ((i ^ j) < B) & (i != j) & ((j < i) == ((i & B) != 0))


@triton.jit
def steps(i, B: tl.constexpr):
    """How many j are `reached` by each i, as a column."""
    inside = i & (B - 1)
    return tl.where((i & B) != 0, inside, B - 1 - inside)[:, None].to(tl.float32)


@triton.jit
def decays(high, low, i, B: tl.constexpr, CONSTANT: tl.constexpr, PREC: tl.constexpr):
    """Of each position: the product of the decays between it and the middle of its block of 2B."""
    if CONSTANT:
        return tl.exp2(steps(i, B) * high)
    else:
        return tl.exp2(total(reached(i, B), high, low, PREC))


@triton.jit
def before(high, low, i, CONSTANT: tl.constexpr, PREC: tl.constexpr):
    """P: the product of the decays from the start of the chunk to each position."""
    if CONSTANT:
        return tl.exp2(i[:, None].to(tl.float32) * high)
    else:
        return tl.exp2(total(i[None, :] < i[:, None], high, low, PREC))


@triton.jit
def after(high, low, i, size, CONSTANT: tl.constexpr, PREC: tl.constexpr):
    """Q: the product of the decays from each position to the end of the chunk, which is `size` long."""
    if CONSTANT:
        return tl.exp2(behind(i, size) * high)
    else:
        return tl.exp2(total(i[None, :] > i[:, None], high, low, PREC))


@triton.jit
def behind(i, size):
    """How many positions are left after each, as a column."""
    return tl.maximum(size - 1 - i, 0)[:, None].to(tl.float32)


@triton.jit
def whole(high, low, i, size, CONSTANT: tl.constexpr, PREC: tl.constexpr):
    """W: the product of all decays of the chunk, a row of keys."""
    if CONSTANT:
        return tl.exp2(size.to(tl.float32) * high)
    else:
        # As one more product, whose rows are all the same: so it lies where the states want it.
        return tl.exp2(tl.max(total((i[:, None] ^ i[None, :]) >= 0, high, low, PREC), 0))[None, :]
