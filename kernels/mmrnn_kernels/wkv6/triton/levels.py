"""Decays within a chunk of one head, for the kernels by chunks. ../README.md has the mathematics.

At level B = 1, 2, 4, ..., BT/2 a pair of positions lies in the two halves of one block of 2B. Every position reaches up
to the middle of its block, so one matrix of decays serves both sides of all pairs of a level.

A log2 decay is given as `b_high`, `b_low`: two matrices whose sum it is, or twice the same row if it is CONSTANT.
"""

import triton
import triton.language as tl

from ...common.triton.primitives import dot, level_reach


@triton.jit
def split_bf16(b_g, CONSTANT: tl.constexpr, DOT_TYPE: tl.constexpr):
    """Split a matrix into two in bf16, which `masked_sum` multiplies by zeros and ones with an error below 2^-17."""
    if CONSTANT or DOT_TYPE == "ieee":
        return b_g, b_g
    else:
        # [BT, BK]
        b_high = b_g.to(tl.bfloat16)
        b_low = (b_g - b_high.to(tl.float32)).to(tl.bfloat16)
        if DOT_TYPE == "bf16 emulated":
            return b_high.to(tl.float32), b_low.to(tl.float32)
        else:
            return b_high, b_low


@triton.jit
def masked_sum(m_t, b_high, b_low, DOT_TYPE: tl.constexpr):
    """`mask @ (high + low)`."""
    # [BT, BT] @ [BT, BK]
    if DOT_TYPE == "ieee":
        return tl.dot(m_t.to(tl.float32), b_high, input_precision=DOT_TYPE)
    elif DOT_TYPE == "bf16 emulated":
        return tl.dot(m_t.to(tl.float32), b_high + b_low, input_precision="ieee")
    else:
        return tl.dot(m_t.to(tl.bfloat16), b_low, tl.dot(m_t.to(tl.bfloat16), b_high))


@triton.jit
def reach_count(o_t, B: tl.constexpr):
    """Number of positions in the `level_reach` of each."""
    o_inside = o_t & (B - 1)
    # [BT, 1]
    return tl.where((o_t & B) != 0, o_inside, B - 1 - o_inside)[:, None].to(tl.float32)


@triton.jit
def level_decay(b_high, b_low, o_t, B: tl.constexpr, CONSTANT: tl.constexpr, DOT_TYPE: tl.constexpr):
    """P and Q of level B: the product of the decays between each position and the middle of its block of 2B."""
    # [BT, BK]
    if CONSTANT:
        return tl.exp2(reach_count(o_t, B) * b_high)
    else:
        return tl.exp2(masked_sum(level_reach(o_t, B), b_high, b_low, DOT_TYPE))


@triton.jit
def decay_before(b_high, b_low, o_t, CONSTANT: tl.constexpr, DOT_TYPE: tl.constexpr):
    """P of the chunk: the product of the decays from its start to each position."""
    # [BT, BK]
    if CONSTANT:
        return tl.exp2(o_t[:, None].to(tl.float32) * b_high)
    else:
        return tl.exp2(masked_sum(o_t[None, :] < o_t[:, None], b_high, b_low, DOT_TYPE))


@triton.jit
def decay_after(b_high, b_low, o_t, T, CONSTANT: tl.constexpr, DOT_TYPE: tl.constexpr):
    """Q of the chunk: the product of the decays from each position to its end; it has T positions."""
    # [BT, BK]
    if CONSTANT:
        return tl.exp2(positions_after(o_t, T) * b_high)
    else:
        return tl.exp2(masked_sum(o_t[None, :] > o_t[:, None], b_high, b_low, DOT_TYPE))


@triton.jit
def positions_after(o_t, T):
    """Number of positions after each in a chunk of T."""
    # [BT, 1]
    return tl.maximum(T - 1 - o_t, 0)[:, None].to(tl.float32)


@triton.jit
def chunk_decay(b_high, b_low, o_t, T, CONSTANT: tl.constexpr, DOT_TYPE: tl.constexpr):
    """W of the chunk: the product of all its decays."""
    # [1, BK]
    if CONSTANT:
        return tl.exp2(T.to(tl.float32) * b_high)
    else:
        # As one more product, with equal rows: so its layout is the one that the states need.
        m_all = (o_t[:, None] ^ o_t[None, :]) >= 0
        return tl.exp2(tl.max(masked_sum(m_all, b_high, b_low, DOT_TYPE), 0))[None, :]


@triton.jit
def pull_back(b_x, m_t, b_count, CONSTANT: tl.constexpr, DOT_TYPE: tl.constexpr):
    """Gradient of the logarithms from that of the exponents: `mask @ x`; if CONSTANT its sum over positions, later."""
    if CONSTANT:
        return b_count * b_x
    else:
        # [BT, BT] @ [BT, BK]
        return dot(m_t.to(tl.float32), b_x, DOT_TYPE)
