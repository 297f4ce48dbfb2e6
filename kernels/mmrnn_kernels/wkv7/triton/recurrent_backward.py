"""Gradients of r, w, k, a and b position by position: the recurrent counterpart of `chunk_backward.py`."""

import triton
import triton.language as tl

from ...common.triton.primitives import decay_terms, first_slot, load_row, load_row_masked, sequence_bounds
from .update import update_state


@triton.jit
def recompute_states(
    b_s,
    w,
    k,
    v,
    b,
    reads,
    dreads,
    dout,
    dr,
    da,
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
):
    """S before each of BT positions from i_t on; stores the gradients of r and a, (5)."""
    b_states = ()
    for j in tl.static_range(BT):
        b_states += (b_s,)
        m_row = i_t + j < T
        i_row = (bos + i_t + j) * H + i_h
        # [BK], [BK], [V], [V], [V], [V]
        b_k = load_row_masked(k, i_row, o_k, m_row, K)
        b_b = load_row_masked(b, i_row, o_k, m_row, K)
        b_v = load_row_masked(v, i_row, o_v, m_row, V)
        b_do = load_row_masked(dout, i_row, o_v, m_row, V)
        b_x = tl.load(reads + i_row * V + o_v, mask=m_row, other=0.0)
        b_dx = tl.load(dreads + i_row * V + o_v, mask=m_row, other=0.0)
        b_keep, b_change, _ = decay_terms(load_row_masked(w, i_row, o_k, m_row, K, float("-inf")))
        b_da = tl.sum(b_s * b_dx[None, :], 1)
        tl.store(da + i_row * K + o_k, b_da.to(da.dtype.element_ty), mask=m_row)
        b_s = update_state(b_s, b_keep, b_change, b_b, b_x, b_k, b_v)
        b_dr = tl.sum(b_s * b_do[None, :], 1)
        tl.store(dr + i_row * K + o_k, b_dr.to(dr.dtype.element_ty), mask=m_row)
    return b_states


@triton.jit
def run_backwards(
    b_ds,
    b_states,
    r,
    w,
    v,
    a,
    reads,
    dreads,
    dout,
    dw,
    dk,
    db,
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
):
    """G before BT positions from i_t on, (4); stores the gradients of k, b and w, (5) and (6)."""
    for j in tl.static_range(BT):
        i = i_t + BT - 1 - j
        m_row = i < T
        i_row = (bos + i) * H + i_h
        # [BK], [BK], [V], [V], [V], [V]
        b_r = load_row_masked(r, i_row, o_k, m_row, K)
        b_a = load_row_masked(a, i_row, o_k, m_row, K)
        b_v = load_row_masked(v, i_row, o_v, m_row, V)
        b_do = load_row_masked(dout, i_row, o_v, m_row, V)
        b_x = tl.load(reads + i_row * V + o_v, mask=m_row, other=0.0)
        b_dx = tl.load(dreads + i_row * V + o_v, mask=m_row, other=0.0)
        b_keep, b_change, b_rate = decay_terms(load_row_masked(w, i_row, o_k, m_row, K, float("-inf")))
        b_ds += b_r[:, None] * b_do[None, :]
        b_dk = tl.sum(b_ds * b_v[None, :], 1)
        tl.store(dk + i_row * K + o_k, b_dk.to(dk.dtype.element_ty), mask=m_row)
        b_db = tl.sum(b_ds * b_x[None, :], 1)
        tl.store(db + i_row * K + o_k, b_db.to(db.dtype.element_ty), mask=m_row)
        b_dw = -tl.sum(b_ds * b_states[BT - 1 - j], 1) * (b_keep + b_change) * b_rate
        tl.store(dw + i_row * K + o_k, b_dw.to(dw.dtype.element_ty), mask=m_row)
        b_ds = b_ds * b_keep[:, None] + (b_ds * b_change[:, None] + b_a[:, None] * b_dx[None, :])
    return b_ds


@triton.jit
def recurrent_backward_kernel(
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
    checkpoints,
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
    SPAN: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_DEND: tl.constexpr,
):
    """Equations (5) and (6). Grid: (sequences x heads, blocks of BK rows of the state).

    Given U and its gradient the rows are independent. `checkpoints` has S before every SPAN positions. From there S is
    computed again up to BT positions, where it waits in registers for G, which runs backwards.
    """
    i_n = tl.program_id(0) // H
    i_h = tl.program_id(0) % H
    o_k = tl.program_id(1) * BK + tl.arange(0, BK)
    o_v = tl.arange(0, V)
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    # [BK, V]
    o_s = o_k[:, None] * V + o_v[None, :]
    o_state = (i_n * H + i_h).to(tl.int64) * K * V + o_s
    b_ds = tl.load(dend + o_state) if HAS_DEND else tl.zeros([BK, V], dtype=tl.float32)
    T = (eos - bos).to(tl.int32)
    blocks = tl.cdiv(T, BT)
    checkpoints += (first_slot(bos, SPAN, i_n) * H + i_h) * K * V
    for i in range(0, blocks):
        i_t = (blocks - 1 - i) * BT
        b_s = tl.load(checkpoints + (i_t // SPAN).to(tl.int64) * (H * K * V) + o_s)
        for j in range(i_t // SPAN * SPAN, i_t):
            i_row = (bos + j) * H + i_h
            b_k = load_row(k, i_row, o_k, K)
            b_b = load_row(b, i_row, o_k, K)
            b_v = load_row(v, i_row, o_v, V)
            b_x = tl.load(reads + i_row * V + o_v)
            b_keep, b_change, _ = decay_terms(load_row(w, i_row, o_k, K))
            b_s = update_state(b_s, b_keep, b_change, b_b, b_x, b_k, b_v)
        b_states = recompute_states(
            *(b_s, w, k, v, b, reads, dreads, dout, dr, da, bos, i_t, T, i_h, o_k, o_v, H, K, V, BT)
        )
        b_ds = run_backwards(
            *(b_ds, b_states, r, w, v, a, reads, dreads, dout, dw, dk, db, bos, i_t, T, i_h, o_k, o_v, H, K, V, BT)
        )
