"""Decays and scores within a chunk of one head. ../README.md has the mathematics.

At level B = 1, 2, 4, ..., BT/2 a pair of positions lies in the two halves of one block of 2B. Every position reaches up
to the middle of its block.
"""

import triton
import triton.language as tl

from ...common.triton.primitives import dot, level_pairs, level_reach, right_half


@triton.jit
def masked_decay(m_t, b_g, EXACT_TYPE: tl.constexpr):
    """Products of the decays in each row of the mask: sums of logarithms, all of one sign."""
    # [BT, BT] @ [BT, K]
    return tl.exp2(tl.dot(m_t.to(tl.float32), b_g, input_precision=EXACT_TYPE))


@triton.jit
def level_factors(b_reads, b_writes, b_g, o_t, B: tl.constexpr, EXACT_TYPE: tl.constexpr):
    """Reads of the right halves and writes of the left ones, times the decays up to the middle; and these decays."""
    # [BT, K]
    b_decay = masked_decay(level_reach(o_t, B), b_g, EXACT_TYPE)
    return tl.where(right_half(o_t, B), b_reads, b_writes) * b_decay, b_decay


@triton.jit
def chunk_scores(b_r, b_k, b_a, b_b, b_g, o_t, LEVELS: tl.constexpr, DOT_TYPE: tl.constexpr, EXACT_TYPE: tl.constexpr):
    """(1 - A_ab)^-1; A_ak below the diagonal and A_rb transposed above it; A_rk. `b_r` is r times its own decay.

    The inverse of a block is that of its right half, times A_ab between the halves, times that of its left one: sums of
    the recurrence itself, whereas powers of A_ab would cancel.
    """
    # [BT, BT]
    m_lower = o_t[:, None] > o_t[None, :]
    b_inverse = (o_t[:, None] == o_t[None, :]).to(tl.float32)
    b_mixed = tl.zeros_like(b_inverse)
    b_rk = tl.zeros_like(b_inverse)
    for i_l in tl.static_range(LEVELS):
        m_pairs = level_pairs(o_t, 1 << i_l)
        # [BT, K]
        b_x, _ = level_factors(b_a, b_b, b_g, o_t, 1 << i_l, EXACT_TYPE)
        b_z, _ = level_factors(b_r, b_k, b_g, o_t, 1 << i_l, EXACT_TYPE)
        # [BT, BT]
        b_ab = tl.where(m_pairs & m_lower, dot(b_x, tl.trans(b_x), DOT_TYPE), 0.0)
        b_between = tl.dot(tl.dot(b_inverse, b_ab, input_precision=EXACT_TYPE), b_inverse, input_precision=EXACT_TYPE)
        b_inverse += b_between
        b_mixed = tl.where(m_pairs, dot(b_x, tl.trans(b_z), DOT_TYPE), b_mixed)
        b_rk = tl.where(m_pairs & m_lower, dot(b_z, tl.trans(b_z), DOT_TYPE), b_rk)
    return b_inverse, b_mixed, b_rk
