"""Backward kernel by chunks: backwards over a sequence, or over a piece of one, with the gradient of the state G in
registers.
"""

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
from .levels import (
    chunk_decay,
    decay_after,
    decay_before,
    level_decay,
    positions_after,
    pull_back,
    reach_count,
    split_bf16,
)


@triton.jit
def within_chunk(
    b_r,
    b_k,
    b_u,
    b_own,
    b_v,
    b_do,
    b_du,
    b_high,
    b_low,
    o_t,
    LEVELS: tl.constexpr,
    CONSTANT: tl.constexpr,
    STORE_DV: tl.constexpr,
    DOT_TYPE: tl.constexpr,
):
    """Gradients from pairs in the chunk, (16): of r, k and log2 d; that of u, added to `b_du`; and A with STORE_DV."""
    # [BT, BT]: symmetric, [t, s] and [s, t] have the gradient of A[t, s]
    m_lower = o_t[:, None] >= o_t[None, :]
    b_da = tl.where(m_lower, dot(b_do, tl.trans(b_v), DOT_TYPE), dot(b_v, tl.trans(b_do), DOT_TYPE))
    # [BT, 1]
    b_shared = tl.sum(tl.where(o_t[:, None] == o_t[None, :], b_da, 0.0), 1)[:, None]
    # [BT, BK]
    b_dr = b_shared * b_u * b_k
    b_dk = b_shared * b_u * b_r
    b_dlog = tl.zeros_like(b_dr)
    b_du += tl.sum(b_shared * b_r * b_k, 0)
    b_x = tl.where(right_half(o_t, 1), b_r, b_k)
    b_y = dot(tl.where(level_pairs(o_t, 1), b_da, 0.0), b_x, DOT_TYPE)
    b_right = right_half(o_t, 1).to(tl.float32)
    b_dr += b_y * b_right
    b_dk += b_y * (1.0 - b_right)
    b_a = b_da
    if STORE_DV:
        b_a = tl.where(o_t[:, None] == o_t[None, :], b_own[:, None], 0.0)
        b_a = tl.where(level_pairs(o_t, 1), dot(b_x, tl.trans(b_x), DOT_TYPE), b_a)
    for i_l in tl.static_range(1, LEVELS):
        b_decay = level_decay(b_high, b_low, o_t, 1 << i_l, CONSTANT, DOT_TYPE)
        b_x = tl.where(right_half(o_t, 1 << i_l), b_r, b_k) * b_decay
        if STORE_DV:
            b_a = tl.where(level_pairs(o_t, 1 << i_l), dot(b_x, tl.trans(b_x), DOT_TYPE), b_a)
        b_y = dot(tl.where(level_pairs(o_t, 1 << i_l), b_da, 0.0), b_x, DOT_TYPE)
        m_reach = tl.trans(level_reach(o_t, 1 << i_l))
        b_dlog += pull_back(b_x * b_y, m_reach, reach_count(o_t, 1 << i_l), CONSTANT, DOT_TYPE)
        b_y *= b_decay
        b_right = right_half(o_t, 1 << i_l).to(tl.float32)
        b_dr += b_y * b_right
        b_dk += b_y * (1.0 - b_right)
    return b_dr, b_dk, b_dlog, b_du, b_a


@triton.jit
def across_chunks(
    b_r,
    b_k,
    b_v,
    b_do,
    b_s,
    b_ds,
    b_dr,
    b_dk,
    b_dlog,
    b_high,
    b_low,
    o_t,
    n_t,
    BT: tl.constexpr,
    CONSTANT: tl.constexpr,
    STORE_DV: tl.constexpr,
    DOT_TYPE: tl.constexpr,
):
    """Gradients from pairs with one end in the chunk or around it, added to those within it.

    Returns those of r, k and log2 d, then that of v (only with STORE_DV) and that of the state before the chunk.
    """
    # [1, BK]
    b_whole = chunk_decay(b_high, b_low, o_t, n_t, CONSTANT, DOT_TYPE)
    b_around = b_whole * tl.sum(b_s * b_ds, 0)[None, :] * (n_t.to(tl.float32) / BT if CONSTANT else 1.0)
    # [BT, BK]
    b_decay = decay_before(b_high, b_low, o_t, CONSTANT, DOT_TYPE)
    b_rp = b_r * b_decay
    # [BT, V] @ [V, BK]
    b_more = b_decay * dot(b_do, b_s, DOT_TYPE)
    b_dr += b_more
    m_later = o_t[:, None] < o_t[None, :]
    b_dlog += b_around + pull_back(b_r * b_more, m_later, o_t[:, None].to(tl.float32), CONSTANT, DOT_TYPE)
    b_decay = decay_after(b_high, b_low, o_t, n_t, CONSTANT, DOT_TYPE)
    b_more = b_decay * dot(b_v, b_ds, DOT_TYPE)
    b_dk += b_more
    m_earlier = o_t[:, None] > o_t[None, :]
    b_dlog += pull_back(b_k * b_more, m_earlier, positions_after(o_t, n_t), CONSTANT, DOT_TYPE)
    b_dv = b_v
    if STORE_DV:
        # [BT, BK] @ [BK, V]
        b_dv = dot(b_k * b_decay, tl.trans(b_ds), DOT_TYPE)
    # [V, BT] @ [BT, BK]
    b_ds = b_ds * b_whole + dot(tl.trans(b_do), b_rp, DOT_TYPE)
    return b_dr, b_dk, b_dlog, b_dv, b_ds


@triton.jit
def chunk_backward_kernel(
    r,
    k,
    v,
    w,
    u,
    dout,
    dend,
    states,
    ends,
    dr,
    dk,
    dv,
    dw,
    du,
    dstart,
    cu_seqlens,
    length,
    span,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BT: tl.constexpr,
    LEVELS: tl.constexpr,
    DOT_TYPE: tl.constexpr,
    TARGET: tl.constexpr,
    PACKED: tl.constexpr,
    CONSTANT: tl.constexpr,
    HAS_DEND: tl.constexpr,
    HAS_PIECES: tl.constexpr,
    STORE_DV: tl.constexpr,
):
    """Equation (16). Grid: (sequences x heads, pieces x blocks of BK rows of the state).

    Keys are independent, except in dv, a sum over keys: it is computed with STORE_DV, where a program has all of them.
    `states` has S before each chunk, `ends` G after each piece, both transposed (`v k`).
    """
    i_n = tl.program_id(0) // H
    i_h = tl.program_id(0) % H
    o_t = tl.arange(0, BT)
    i_piece = tl.program_id(1) // (K // BK)
    o_k = (tl.program_id(1) % (K // BK)) * BK + tl.arange(0, BK)
    o_v = tl.arange(0, V)
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    i_begin = bos + i_piece * span
    i_end = tl.minimum(i_begin + span, eos)
    if (i_begin >= eos) & (i_piece > 0):
        return  # this sequence has fewer pieces
    i_slot = (first_slot(bos, span, i_n) + i_piece) * H + i_h
    # [V, BK]
    o_s = o_v[:, None] * K + o_k[None, :]
    if HAS_PIECES:
        b_ds = tl.load(ends + i_slot * K * V + o_s)
    elif HAS_DEND:
        o_state = (i_n * H + i_h).to(tl.int64) * K * V + o_k[:, None] * V + o_v[None, :]
        b_ds = tl.trans(tl.load(dend + o_state))
    else:
        b_ds = tl.zeros([V, BK], dtype=tl.float32)
    # [BK]
    b_du = tl.zeros([BK], dtype=tl.float32)
    if CONSTANT:
        b_w = tl.load(w + i_h * K + o_k).to(tl.float32)
        b_g = log2_decay(b_w)[None, :]
        b_dw = tl.zeros([BK], dtype=tl.float32)

    T = (i_end - i_begin).to(tl.int32)
    chunks = tl.cdiv(T, BT)
    states += ((first_slot(bos, BT, i_n) + (i_begin - bos) // BT) * H + i_h) * K * V
    for i in range(0, chunks):
        i_chunk = chunks - 1 - i
        i_t = i_chunk * BT
        i_row = (i_begin + i_t) * H + i_h
        o_c = hide_loop_invariance(o_t, i_t, TARGET)
        m_t = (i_t + o_c < T)[:, None]
        o_rk = chunk_offsets(i_row, o_c, o_k, H, K)
        o_rv = chunk_offsets(i_row, o_c, o_v, H, V)
        b_u = tl.load(u + i_h * K + o_k).to(tl.float32)[None, :]  # here: no registers to keep it in
        # [BT, BK]
        b_r = tl.load(r + o_rk, mask=m_t, other=0.0).to(tl.float32)
        b_k = tl.load(k + o_rk, mask=m_t, other=0.0).to(tl.float32)
        b_own = tl.sum(b_r * b_u * b_k, 1)  # here, where the inputs still have the layout they were loaded in
        # [BT, V]
        b_v = tl.load(v + o_rv, mask=m_t, other=0.0)
        b_do = tl.load(dout + o_rv, mask=m_t, other=0.0)
        if not CONSTANT:
            b_g = log2_decay(tl.load(w + o_rk, mask=m_t, other=float("-inf")).to(tl.float32))
        b_high, b_low = split_bf16(b_g, CONSTANT, DOT_TYPE)
        n_t = tl.minimum(T - i_t, BT)
        b_dr, b_dk, b_dlog, b_du, b_a = within_chunk(
            b_r, b_k, b_u, b_own, b_v, b_do, b_du, b_high, b_low, o_c, LEVELS, CONSTANT, STORE_DV, DOT_TYPE
        )

        # The rest of the sequence. Not before, and loaded again: there are no registers for both at once.
        b_v = tl.load(v + o_rv, mask=m_t, other=0.0)
        b_do = tl.load(dout + o_rv, mask=m_t, other=0.0)
        b_s = tl.load(states + i_chunk.to(tl.int64) * (H * K * V) + o_s)
        b_dr, b_dk, b_dlog, b_dv, b_ds = across_chunks(
            *(b_r, b_k, b_v, b_do, b_s, b_ds, b_dr, b_dk, b_dlog, b_high, b_low, o_c, n_t),
            *(BT, CONSTANT, STORE_DV, DOT_TYPE),
        )

        tl.store(dr + o_rk, b_dr.to(dr.dtype.element_ty), mask=m_t)
        tl.store(dk + o_rk, b_dk.to(dk.dtype.element_ty), mask=m_t)
        if STORE_DV:
            # A is lower triangular, this is its transpose.
            b_dv += dot(tl.where(o_c[:, None] <= o_c[None, :], b_a, 0.0), b_do, DOT_TYPE)
            tl.store(dv + o_rv, b_dv.to(dv.dtype.element_ty), mask=m_t)
        if CONSTANT:
            b_dw += tl.sum(b_dlog, 0)
        else:
            # g is -log2(e) exp(w), computed again: it has no register to wait in.
            b_g = log2_decay(tl.load(w + o_rk, mask=m_t, other=float("-inf")).to(tl.float32))
            tl.store(dw + o_rk, (b_dlog * b_g * (1 / LOG2E)).to(dw.dtype.element_ty), mask=m_t)
    tl.store(du + i_slot * K + o_k, b_du)
    if CONSTANT:
        tl.store(dw + i_slot * K + o_k, b_dw * log2_decay(b_w) * (1 / LOG2E))
    if i_piece == 0:
        o_state = (i_n * H + i_h).to(tl.int64) * K * V + o_k[:, None] * V + o_v[None, :]
        tl.store(dstart + o_state, tl.trans(b_ds))
