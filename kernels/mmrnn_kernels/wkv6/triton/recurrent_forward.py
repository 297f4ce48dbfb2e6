"""Recurrence position by position with the state in registers: short sequences, down to one position, and fp32.

The final state may be written over the initial one.
"""

import triton
import triton.language as tl

from ...common.triton.primitives import decay_terms, first_slot, load_row, sequence_bounds


@triton.jit
def recurrent_forward_kernel(
    r,
    k,
    v,
    w,
    u,
    start,
    out,
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
    CONSTANT: tl.constexpr,
    HAS_START: tl.constexpr,
    STORE_STATES: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Equations (1) and (2). Grid: (sequences x heads, blocks of BV columns of the state).

    With STORE_STATES only S before every SPAN positions is stored, in `checkpoints`. In reverse, with r and k exchanged
    and the gradient of y as v, the state is G and `out` the gradient of v.
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
    # [K]
    b_u = tl.load(u + i_h * K + o_k).to(tl.float32)
    if CONSTANT:
        b_keep, b_change, _ = decay_terms(tl.load(w + i_h * K + o_k).to(tl.float32))
    if STORE_STATES:
        checkpoints += (first_slot(bos, SPAN, i_n) * H + i_h) * K * V
    T = (eos - bos).to(tl.int32)
    for i in range(0, T):
        i_t = T - 1 - i if REVERSE else i
        if STORE_STATES:  # a condition of its own, since this one is decided at compile time
            if i_t % SPAN == 0:
                tl.store(checkpoints + o_s, b_s)
                checkpoints += H * K * V
        i_row = (bos + i_t) * H + i_h
        # [K], [BV]
        b_k = load_row(k, i_row, o_k, K)
        b_v = load_row(v, i_row, o_v, V)
        if not CONSTANT:
            b_keep, b_change, _ = decay_terms(load_row(w, i_row, o_k, K))
        if not STORE_STATES:
            b_r = load_row(r, i_row, o_k, K)
            b_y = tl.sum(b_r[:, None] * b_s, 0) + tl.sum(b_r * b_u * b_k, 0) * b_v
            tl.store(out + i_row * V + o_v, b_y.to(out.dtype.element_ty))
        b_s = b_s * b_keep[:, None] + (b_s * b_change[:, None] + b_k[:, None] * b_v[None, :])
    if not STORE_STATES:
        tl.store(end + o_state, b_s)
