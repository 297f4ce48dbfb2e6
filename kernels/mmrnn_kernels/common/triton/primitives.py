"""Device functions that the WKV kernels share.

Names: `b_` a block in registers, `i_` an index, `o_` offsets, `p_` a pointer, `m_` a mask. `bos` and `eos` are begin
and end of a sequence, `T` and `n_t` count positions. A comment above a tile gives its shape.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2_HIGH = tl.constexpr(0.693145751953125)  # 15 bits, so that small integers times it are exact
LN2_LOW = tl.constexpr(1.4286068203094172e-06)


@triton.jit
def dot(b_a, b_b, DOT_TYPE: tl.constexpr):
    """Multiply matrices with sums in fp32; the factors are rounded to DOT_TYPE."""
    if DOT_TYPE == "bf16":
        return tl.dot(b_a.to(tl.bfloat16), b_b.to(tl.bfloat16))
    elif DOT_TYPE == "bf16 emulated":  # the interpreter multiplies the bits of bf16 as if they were integers
        return tl.dot(b_a.to(tl.bfloat16).to(tl.float32), b_b.to(tl.bfloat16).to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(b_a.to(tl.float32), b_b.to(tl.float32), input_precision=DOT_TYPE)


@triton.jit
def sequence_bounds(cu_seqlens, length, i_n, PACKED: tl.constexpr):
    """Begin and end of sequence i_n in the rows."""
    if PACKED:
        bos = tl.load(cu_seqlens + i_n).to(tl.int64)
        eos = tl.load(cu_seqlens + i_n + 1).to(tl.int64)
    else:
        bos = i_n.to(tl.int64) * length
        eos = bos + length
    return bos, eos


@triton.jit
def first_slot(bos, span, i_n):
    """Slot of the first piece of sequence i_n; those of its other pieces follow.

    Every piece of `span` positions has a slot of its own, whatever the lengths of the sequences; there are
    `positions // span + sequences` slots.
    """
    return bos // span + i_n


@triton.jit
def load_row(x, i_row, o_c, C: tl.constexpr):
    """Load columns o_c of a row of C columns in fp32."""
    return tl.load(x + i_row * C + o_c).to(tl.float32)


@triton.jit
def load_row_masked(x, i_row, o_c, m_row, C: tl.constexpr, OTHER: tl.constexpr = 0.0):
    """Load columns o_c of a row of C columns in fp32, or OTHER if m_row is false."""
    return tl.load(x + i_row * C + o_c, mask=m_row, other=OTHER).to(tl.float32)


@triton.jit
def chunk_offsets(i_row, o_t, o_c, H: tl.constexpr, C: tl.constexpr):
    """Offsets of positions o_t after row i_row and columns o_c of one head in a tensor `t h c` with C columns."""
    # [BT, BC]
    return i_row * C + (o_t[:, None] * (H * C) + o_c[None, :])


@triton.jit
def hide_loop_invariance(o_t, i_turn, TARGET: tl.constexpr):
    """`o_t` as a value that the compiler takes to depend on the loop counter.

    Otherwise it computes the masks of all levels ahead of the loop and keeps them in registers that do not exist.
    """
    if TARGET == "cuda":
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r,r", [o_t, i_turn], tl.int32, is_pure=True, pack=1)
    else:
        return o_t


@triton.jit
def log2_decay(b_w):
    """log2 of the decay. Above 10 the decay is 0 in any precision, and exp(w) may be infinite."""
    return tl.exp2(tl.where(b_w > 10.0, 10.0, b_w) * LOG2E) * -LOG2E


@triton.jit
def exact_exp(b_x):
    """e^x to the precision of fp32. `exp2(x log2(e))` rounds the exponent, an error that grows with x."""
    b_n = tl.floor(b_x * LOG2E + 0.5)
    b_rest = (b_x - b_n * LN2_HIGH) - b_n * LN2_LOW
    return tl.exp2(b_n) * tl.exp2(b_rest * LOG2E)


@triton.jit
def decay_terms(b_w):
    """`keep` and `change`, whose sum is the decay exp(-exp(w)), and exp(w).

    For a decay near one `s * keep + s * change` is s plus its loss: so products are rounded and not the decay, whose
    rounding error would repeat at every position. A small decay is all in `change`: as a difference from one it would
    be inexact.
    """
    b_w = tl.where(b_w > 10.0, 10.0, b_w)  # above 104 or below -100 the decay is exactly 0 or 1, and NaN stays
    b_x = exact_exp(tl.where(b_w < -100.0, -100.0, b_w))
    b_x = tl.where(b_x > 104.0, 104.0, b_x)
    m_near = b_x < 0.5
    b_series = 1 - b_x * (1 / 6) * (1 - b_x * (1 / 7))
    b_series = 1 - b_x * (1 / 4) * (1 - b_x * (1 / 5) * b_series)
    b_series = 1 - b_x * (1 / 2) * (1 - b_x * (1 / 3) * b_series)
    return tl.where(m_near, 1.0, 0.0), tl.where(m_near, -b_x * b_series, exact_exp(-b_x)), b_x


@triton.jit
def level_pairs(o_t, B: tl.constexpr):
    """Mask of the pairs of level B, which lie in the two halves of one block of 2B positions."""
    # [BT, BT]
    o_apart = o_t[:, None] ^ o_t[None, :]
    return (o_apart >= B) & (o_apart < 2 * B)


@triton.jit
def right_half(o_t, B: tl.constexpr):
    """Mask of the positions in the right halves of blocks of 2B."""
    # [BT, 1]
    return ((o_t & B) != 0)[:, None]


@triton.jit
def level_reach(o_t, B: tl.constexpr):
    """Mask [i, j] of the positions j between i and the middle of the block of 2B that i is in."""
    o_j = o_t[None, :]
    o_i = o_t[:, None]
    # [BT, BT]
    return ((o_i ^ o_j) < B) & (o_i != o_j) & ((o_j < o_i) == ((o_i & B) != 0))
