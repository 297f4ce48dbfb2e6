"""Recurrence position by position with the state in registers: forwards, and backwards in time for dv."""

import triton
import triton.language as tl

from ...common.triton.primitives import decay_terms, first_slot, load_row, sequence_bounds
from .update import update_state


@triton.jit
def recurrent_forward_kernel(
    r,
    w,
    k,
    v,
    a,
    b,
    start,
    out,
    reads,
    end,
    checkpoints,
    cu_seqlens,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BV: tl.constexpr,
    SPAN: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_START: tl.constexpr,
    STORE_STATES: tl.constexpr,
):
    """Equations (1) to (3). Grid: (sequences x heads, blocks of BV columns of the state).

    With STORE_STATES neither `out` nor `end` is stored, but S before every SPAN positions in `checkpoints` and U, what
    each position reads at a, in `reads`.
    """
    i_n = tl.program_id(0) // H
    i_h = tl.program_id(0) % H
    o_k = tl.arange(0, K)
    o_v = tl.program_id(1) * BV + tl.arange(0, BV)
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    # [K, BV]
    o_s = o_k[:, None] * V + o_v[None, :]
    o_state = (i_n * H + i_h).to(tl.int64) * K * V + o_s
    b_s = tl.load(start + o_state) if HAS_START else tl.zeros([K, BV], dtype=tl.float32)
    if STORE_STATES:
        checkpoints += (first_slot(bos, SPAN, i_n) * H + i_h) * K * V
    for i_t in range(0, (eos - bos).to(tl.int32)):
        if STORE_STATES:  # a condition of its own, since this one is decided at compile time
            if i_t % SPAN == 0:
                tl.store(checkpoints + o_s, b_s)
                checkpoints += H * K * V
        i_row = (bos + i_t) * H + i_h
        # [K], [K], [K], [BV]
        b_k = load_row(k, i_row, o_k, K)
        b_a = load_row(a, i_row, o_k, K)
        b_b = load_row(b, i_row, o_k, K)
        b_v = load_row(v, i_row, o_v, V)
        b_keep, b_change, _ = decay_terms(load_row(w, i_row, o_k, K))
        # [BV]
        b_x = tl.sum(b_a[:, None] * b_s, 0)
        b_s = update_state(b_s, b_keep, b_change, b_b, b_x, b_k, b_v)
        if STORE_STATES:
            tl.store(reads + i_row * V + o_v, b_x)
        else:
            b_r = load_row(r, i_row, o_k, K)
            tl.store(out + i_row * V + o_v, tl.sum(b_r[:, None] * b_s, 0).to(out.dtype.element_ty))
    if not STORE_STATES:
        tl.store(end + o_state, b_s)


@triton.jit
def recurrent_reverse_kernel(
    r,
    w,
    k,
    dout,
    a,
    b,
    dend,
    dv,
    dreads,
    dstart,
    cu_seqlens,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BV: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_DEND: tl.constexpr,
):
    """Equation (4): G backwards, which is read at b and k and written at a. Stores the gradients of v, U and S."""
    i_n = tl.program_id(0) // H
    i_h = tl.program_id(0) % H
    o_k = tl.arange(0, K)
    o_v = tl.program_id(1) * BV + tl.arange(0, BV)
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    # [K, BV]
    o_state = (i_n * H + i_h).to(tl.int64) * K * V + o_k[:, None] * V + o_v[None, :]
    b_ds = tl.load(dend + o_state) if HAS_DEND else tl.zeros([K, BV], dtype=tl.float32)
    T = (eos - bos).to(tl.int32)
    for i in range(0, T):
        i_row = (bos + T - 1 - i) * H + i_h
        # [K], [K], [K], [K], [BV]
        b_r = load_row(r, i_row, o_k, K)
        b_k = load_row(k, i_row, o_k, K)
        b_a = load_row(a, i_row, o_k, K)
        b_b = load_row(b, i_row, o_k, K)
        b_do = load_row(dout, i_row, o_v, V)
        b_keep, b_change, _ = decay_terms(load_row(w, i_row, o_k, K))
        b_ds += b_r[:, None] * b_do[None, :]
        # [BV]
        b_dx = tl.sum(b_b[:, None] * b_ds, 0)
        tl.store(dreads + i_row * V + o_v, b_dx)
        tl.store(dv + i_row * V + o_v, tl.sum(b_k[:, None] * b_ds, 0).to(dv.dtype.element_ty))
        b_ds = b_ds * b_keep[:, None] + (b_ds * b_change[:, None] + b_a[:, None] * b_dx[None, :])
    tl.store(dstart + o_state, b_ds)
