"""Gradients of r, w, k, a and b: chunks from the last to the first, with the gradient of the state G in registers."""

import triton
import triton.language as tl

from ...common.triton.primitives import (
    LOG2E,
    chunk_offsets,
    dot,
    first_slot,
    hide_loop_invariance,
    level_pairs,
    level_reach,
    log2_decay,
    right_half,
    sequence_bounds,
)
from .levels import level_factors, masked_decay


@triton.jit
def across_chunks(
    b_r,
    b_k,
    b_a,
    b_b,
    b_v,
    b_do,
    b_x,
    b_dx,
    b_g,
    b_s,
    b_ds,
    m_lower,
    m_upper,
    DOT_TYPE: tl.constexpr,
    EXACT_TYPE: tl.constexpr,
):
    """Gradients from pairs with one end in the chunk or around it, (12) and (13): of r, k, a, b, log2 d, and of S."""
    # [BT, BK], [BT, BK], [1, BK]
    b_before = masked_decay(m_lower, b_g, EXACT_TYPE)
    b_after = masked_decay(m_upper, b_g, EXACT_TYPE)
    b_whole = tl.exp2(tl.sum(b_g, 0))[None, :]
    # [BT, V] @ [V, BK]
    b_da = dot(b_dx, b_s, DOT_TYPE) * b_before
    b_dr = dot(b_do, b_s, DOT_TYPE) * b_before
    b_db = dot(b_x, b_ds, DOT_TYPE) * b_after
    b_dk = dot(b_v, b_ds, DOT_TYPE) * b_after
    # [BT, BK]
    b_dlog = tl.sum(b_s * b_ds, 0)[None, :] * b_whole
    b_dlog += tl.dot(m_upper.to(tl.float32), b_da * b_a + b_dr * b_r, input_precision=EXACT_TYPE)
    b_dlog += tl.dot(m_lower.to(tl.float32), b_db * b_b + b_dk * b_k, input_precision=EXACT_TYPE)
    # [V, BT] @ [BT, BK]
    b_ds = b_ds * b_whole + dot(tl.trans(b_dx), b_a * b_before, DOT_TYPE)
    b_ds += dot(tl.trans(b_do), b_r * b_before, DOT_TYPE)
    return b_dr, b_dk, b_da, b_db, b_dlog, b_ds


@triton.jit
def within_chunk(
    b_r,
    b_k,
    b_a,
    b_b,
    b_v,
    b_do,
    b_x,
    b_dx,
    b_g,
    b_dr,
    b_dk,
    b_da,
    b_db,
    b_dlog,
    m_lower,
    o_t,
    LEVELS: tl.constexpr,
    DOT_TYPE: tl.constexpr,
    EXACT_TYPE: tl.constexpr,
):
    """Gradients from pairs in the chunk, level by level, added to those from across chunks."""
    # [BT, BT]
    b_dab = dot(b_dx, tl.trans(b_x), DOT_TYPE)
    b_drk = dot(b_do, tl.trans(b_v), DOT_TYPE)
    # Of A_ak below the diagonal, of A_rb transposed above it, as `chunk_scores` has them.
    b_dmixed = tl.where(m_lower, dot(b_dx, tl.trans(b_v), DOT_TYPE), dot(b_x, tl.trans(b_do), DOT_TYPE))
    b_dab = tl.where(m_lower, b_dab, tl.trans(b_dab))
    b_drk = tl.where(m_lower, b_drk, tl.trans(b_drk))
    for i_l in tl.static_range(LEVELS):
        m_pairs = level_pairs(o_t, 1 << i_l)
        # [BT, 1]
        m_right = right_half(o_t, 1 << i_l)
        # [BT, BK]
        b_ab, b_decay = level_factors(b_a, b_b, b_g, o_t, 1 << i_l, EXACT_TYPE)
        b_rk, _ = level_factors(b_r, b_k, b_g, o_t, 1 << i_l, EXACT_TYPE)
        b_dm = tl.where(m_pairs, b_dmixed, 0.0)
        b_yab = dot(tl.where(m_pairs, b_dab, 0.0), b_ab, DOT_TYPE) + dot(b_dm, b_rk, DOT_TYPE)
        b_yrk = dot(tl.where(m_pairs, b_drk, 0.0), b_rk, DOT_TYPE) + dot(tl.trans(b_dm), b_ab, DOT_TYPE)
        m_reach = tl.trans(level_reach(o_t, 1 << i_l).to(tl.float32))
        b_dlog += tl.dot(m_reach, b_yab * b_ab + b_yrk * b_rk, input_precision=EXACT_TYPE)
        b_yab *= b_decay
        b_yrk *= b_decay
        b_da += tl.where(m_right, b_yab, 0.0)
        b_dr += tl.where(m_right, b_yrk, 0.0)
        b_db += tl.where(m_right, 0.0, b_yab)
        b_dk += tl.where(m_right, 0.0, b_yrk)
    return b_dr, b_dk, b_da, b_db, b_dlog


@triton.jit
def chunk_backward_kernel(
    r,
    w,
    k,
    v,
    a,
    b,
    reads,
    dreads,
    dout,
    dend,
    states,
    dr,
    dw,
    dk,
    da,
    db,
    cu_seqlens,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BT: tl.constexpr,
    LEVELS: tl.constexpr,
    DOT_TYPE: tl.constexpr,
    EXACT_TYPE: tl.constexpr,
    TARGET: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_DEND: tl.constexpr,
):
    """Equation (13) and down the levels. Grid: (sequences x heads, blocks of BK rows of the state).

    Given U and its gradient the rows are independent. `states` has S before each chunk, transposed (`v k`).
    """
    i_n = tl.program_id(0) // H
    i_h = tl.program_id(0) % H
    o_t = tl.arange(0, BT)
    o_k = tl.program_id(1) * BK + tl.arange(0, BK)
    o_v = tl.arange(0, V)
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    # [V, BK]
    if HAS_DEND:
        p_dend = dend + (i_n * H + i_h).to(tl.int64) * K * V
        b_ds = tl.trans(tl.load(p_dend + o_k[:, None] * V + o_v[None, :]))
    else:
        b_ds = tl.zeros([V, BK], dtype=tl.float32)
    states += (first_slot(bos, BT, i_n) * H + i_h) * K * V
    o_s = o_v[:, None] * K + o_k[None, :]
    T = (eos - bos).to(tl.int32)
    chunks = tl.cdiv(T, BT)
    for i in range(0, chunks):
        i_chunk = chunks - 1 - i
        i_t = i_chunk * BT
        o_t = hide_loop_invariance(o_t, i, TARGET)
        # [BT, BT]
        m_lower = o_t[:, None] > o_t[None, :]
        m_upper = o_t[:, None] < o_t[None, :]
        i_row = (bos + i_t) * H + i_h
        m_t = (i_t + o_t < T)[:, None]
        o_rk = chunk_offsets(i_row, o_t, o_k, H, K)
        o_rv = chunk_offsets(i_row, o_t, o_v, H, V)
        # [BT, BK]
        b_r = tl.load(r + o_rk, mask=m_t, other=0.0).to(tl.float32)
        b_k = tl.load(k + o_rk, mask=m_t, other=0.0).to(tl.float32)
        b_a = tl.load(a + o_rk, mask=m_t, other=0.0).to(tl.float32)
        b_b = tl.load(b + o_rk, mask=m_t, other=0.0).to(tl.float32)
        # [BT, V]
        b_v = tl.load(v + o_rv, mask=m_t, other=0.0).to(tl.float32)
        b_do = tl.load(dout + o_rv, mask=m_t, other=0.0).to(tl.float32)
        b_x = tl.load(reads + o_rv, mask=m_t, other=0.0).to(tl.float32)
        b_dx = tl.load(dreads + o_rv, mask=m_t, other=0.0).to(tl.float32)
        # [BT, BK]
        b_g = log2_decay(tl.load(w + o_rk, mask=m_t, other=float("-inf")).to(tl.float32))
        b_s = tl.load(states + i_chunk.to(tl.int64) * (H * K * V) + o_s)
        b_rd = b_r * tl.exp2(b_g)

        b_dr, b_dk, b_da, b_db, b_dlog, b_ds = across_chunks(
            *(b_rd, b_k, b_a, b_b, b_v, b_do, b_x, b_dx, b_g, b_s, b_ds, m_lower, m_upper, DOT_TYPE, EXACT_TYPE)
        )
        b_dr, b_dk, b_da, b_db, b_dlog = within_chunk(
            *(b_rd, b_k, b_a, b_b, b_v, b_do, b_x, b_dx, b_g, b_dr, b_dk, b_da, b_db, b_dlog, m_lower, o_t),
            *(LEVELS, DOT_TYPE, EXACT_TYPE),
        )

        # [BT, 1]
        b_own_b = tl.sum(b_do * b_x, 1)[:, None]
        b_own_k = tl.sum(b_do * b_v, 1)[:, None]
        b_dlog += b_dr * b_rd
        tl.store(da + o_rk, b_da.to(da.dtype.element_ty), mask=m_t)
        tl.store(dw + o_rk, (b_dlog * b_g * (1 / LOG2E)).to(dw.dtype.element_ty), mask=m_t)
        b_dr = b_dr * tl.exp2(b_g) + b_own_b * b_b + b_own_k * b_k
        tl.store(dr + o_rk, b_dr.to(dr.dtype.element_ty), mask=m_t)
        tl.store(db + o_rk, (b_db + b_own_b * b_r).to(db.dtype.element_ty), mask=m_t)
        tl.store(dk + o_rk, (b_dk + b_own_k * b_r).to(dk.dtype.element_ty), mask=m_t)
