"""Gradients of r, k, w and u position by position: the recurrent counterpart of `chunk_backward.py`."""

import triton
import triton.language as tl

from ...common.triton.primitives import decay_terms, first_slot, load_row, load_row_masked, sequence_bounds


@triton.jit
def load_decay_terms(w, b_constant, i_row, o_k, m_row, K: tl.constexpr, CONSTANT: tl.constexpr):
    """`decay_terms` of a row, those of no decay if m_row is false; with CONSTANT `b_constant`, those of all rows."""
    if CONSTANT:
        return b_constant
    else:
        return decay_terms(load_row_masked(w, i_row, o_k, m_row, K, float("-inf")))


@triton.jit
def recompute_states(
    b_s,
    k,
    v,
    w,
    dout,
    dr,
    b_u,
    b_constant,
    bos,
    i_t,
    T,
    i_h,
    o_k,
    o_v,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BT: tl.constexpr,
    CONSTANT: tl.constexpr,
):
    """S before each of BT positions from i_t on; stores the gradient of r, (5)."""
    b_states = ()
    for j in tl.static_range(BT):
        b_states += (b_s,)
        m_row = i_t + j < T
        i_row = (bos + i_t + j) * H + i_h
        # [BK], [V], [V]
        b_k = load_row_masked(k, i_row, o_k, m_row, K)
        b_v = load_row_masked(v, i_row, o_v, m_row, V)
        b_do = load_row_masked(dout, i_row, o_v, m_row, V)
        b_keep, b_change, _ = load_decay_terms(w, b_constant, i_row, o_k, m_row, K, CONSTANT)
        b_dr = tl.sum(b_s * b_do[None, :], 1) + tl.sum(b_v * b_do, 0) * b_u * b_k
        tl.store(dr + i_row * K + o_k, b_dr.to(dr.dtype.element_ty), mask=m_row)
        b_s = b_s * b_keep[:, None] + (b_s * b_change[:, None] + b_k[:, None] * b_v[None, :])
    return b_states


@triton.jit
def run_backwards(
    b_ds,
    b_du,
    b_states,
    r,
    k,
    v,
    w,
    dout,
    dk,
    dw,
    b_u,
    b_constant,
    bos,
    i_t,
    T,
    i_h,
    o_k,
    o_v,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BT: tl.constexpr,
    CONSTANT: tl.constexpr,
):
    """G before BT positions from i_t on, the gradient of u added up, and with CONSTANT that of the decay.

    Stores the gradients of k and, unless CONSTANT, of w: (6) and (9).
    """
    b_dlog = tl.zeros_like(b_du)
    for j in tl.static_range(BT):
        i = i_t + BT - 1 - j
        m_row = i < T
        i_row = (bos + i) * H + i_h
        # [BK], [BK], [V], [V]
        b_r = load_row_masked(r, i_row, o_k, m_row, K)
        b_k = load_row_masked(k, i_row, o_k, m_row, K)
        b_v = load_row_masked(v, i_row, o_v, m_row, V)
        b_do = load_row_masked(dout, i_row, o_v, m_row, V)
        b_keep, b_change, b_rate = load_decay_terms(w, b_constant, i_row, o_k, m_row, K, CONSTANT)
        b_shared = tl.sum(b_v * b_do, 0)
        b_du += b_shared * b_r * b_k
        b_dk = tl.sum(b_ds * b_v[None, :], 1) + b_shared * b_u * b_r
        tl.store(dk + i_row * K + o_k, b_dk.to(dk.dtype.element_ty), mask=m_row)
        b_product = tl.sum(b_ds * b_states[BT - 1 - j], 1)
        if CONSTANT:
            b_dlog += tl.where(m_row, b_product, 0.0)
            b_keep = tl.where(m_row, b_keep, 1.0)[:, None]
            b_ds = b_ds * b_keep + (b_ds * tl.where(m_row, b_change, 0.0)[:, None] + b_r[:, None] * b_do[None, :])
        else:
            b_dw = -b_product * (b_keep + b_change) * b_rate
            tl.store(dw + i_row * K + o_k, b_dw.to(dw.dtype.element_ty), mask=m_row)
            b_ds = b_ds * b_keep[:, None] + (b_ds * b_change[:, None] + b_r[:, None] * b_do[None, :])
    return b_ds, b_du, b_dlog


@triton.jit
def recurrent_backward_kernel(
    r,
    k,
    v,
    w,
    u,
    dout,
    dend,
    checkpoints,
    dr,
    dk,
    dw,
    du,
    cu_seqlens,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BT: tl.constexpr,
    SPAN: tl.constexpr,
    PACKED: tl.constexpr,
    CONSTANT: tl.constexpr,
    HAS_DEND: tl.constexpr,
):
    """Equations (4) to (9) without (7). Grid: (sequences x heads, blocks of BK rows of the state, all independent).

    `checkpoints` has S before every SPAN positions. From there S is computed again up to BT positions, where it waits
    in registers for G, which runs backwards.
    """
    i_n = tl.program_id(0) // H
    i_h = tl.program_id(0) % H
    o_k = tl.program_id(1) * BK + tl.arange(0, BK)
    o_v = tl.arange(0, V)
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    # [BK, V]
    o_s = o_k[:, None] * V + o_v[None, :]
    i_state = (i_n * H + i_h).to(tl.int64) * K
    b_ds = tl.load(dend + i_state * V + o_s) if HAS_DEND else tl.zeros([BK, V], dtype=tl.float32)
    # [BK]
    b_u = tl.load(u + i_h * K + o_k).to(tl.float32)
    b_du = tl.zeros([BK], dtype=tl.float32)
    b_constant = ()
    if CONSTANT:
        b_constant = decay_terms(tl.load(w + i_h * K + o_k).to(tl.float32))
        b_dw = tl.zeros([BK], dtype=tl.float32)

    T = (eos - bos).to(tl.int32)
    blocks = tl.cdiv(T, BT)
    checkpoints += (first_slot(bos, SPAN, i_n) * H + i_h) * K * V
    for i in range(0, blocks):
        i_t = (blocks - 1 - i) * BT
        b_s = tl.load(checkpoints + (i_t // SPAN).to(tl.int64) * (H * K * V) + o_s)
        for j in range(i_t // SPAN * SPAN, i_t):
            i_row = (bos + j) * H + i_h
            b_k = load_row(k, i_row, o_k, K)
            b_v = load_row(v, i_row, o_v, V)
            b_keep, b_change, _ = b_constant if CONSTANT else decay_terms(load_row(w, i_row, o_k, K))
            b_s = b_s * b_keep[:, None] + (b_s * b_change[:, None] + b_k[:, None] * b_v[None, :])
        b_states = recompute_states(
            b_s, k, v, w, dout, dr, b_u, b_constant, bos, i_t, T, i_h, o_k, o_v, H, K, V, BT, CONSTANT
        )
        b_ds, b_du, b_dlog = run_backwards(
            *(b_ds, b_du, b_states, r, k, v, w, dout, dk, dw, b_u, b_constant),
            *(bos, i_t, T, i_h, o_k, o_v, H, K, V, BT, CONSTANT),
        )
        if CONSTANT:
            b_dw += b_dlog
    tl.store(du + i_state + o_k, b_du)
    if CONSTANT:
        # Again: there is no register to keep it in.
        b_keep, b_change, b_rate = decay_terms(tl.load(w + i_h * K + o_k).to(tl.float32))
        tl.store(dw + i_state + o_k, -b_dw * (b_keep + b_change) * b_rate)
