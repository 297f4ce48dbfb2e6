"""What the kernels share: C positions of one head and what they do to each other. The maths is in ../README.md.

At level B = 1, 2, 4, ..., C/2 a pair of positions lies in the two halves of one block of 2B, and every position reaches
up to the middle of its block.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


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
def anew(i, turn, TARGET: tl.constexpr):
    """`i`, in a way that hides from the compiler that no turn of the loop changes it: masks that are computed ahead of
    the loop would have to stay in registers."""
    if TARGET == "cuda":
        return tl.inline_asm_elementwise("add.u32 $0, $1, 0;", "=r,r,r", [i, turn], tl.int32, is_pure=True, pack=1)
    else:
        return i


@triton.jit
def logs(w):
    """log2 of the decay. Above 10 the decay is 0 in any precision, and exp(w) may be infinite."""
    return tl.exp2(tl.where(w > 10.0, 10.0, w) * LOG2E) * -LOG2E


@triton.jit
def over(mask, g, FULL: tl.constexpr):
    """Products of the decays that each row of the mask names: sums of logarithms, all of one sign."""
    return tl.exp2(tl.dot(mask.to(tl.float32), g, input_precision=FULL))


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
