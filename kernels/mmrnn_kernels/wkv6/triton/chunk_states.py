"""States that pieces of a sequence start from, or, backwards, the gradients of the states at their ends."""

import triton
import triton.language as tl

from ...common.triton.primitives import chunk_offsets, dot, first_slot, log2_decay, sequence_bounds
from .levels import chunk_decay, decay_after, decay_before, split_bf16


@triton.jit
def chunk_states_kernel(
    rows,
    columns,
    w,
    start,
    states,
    cu_seqlens,
    length,
    span,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    BT: tl.constexpr,
    DOT_TYPE: tl.constexpr,
    PACKED: tl.constexpr,
    CONSTANT: tl.constexpr,
    HAS_START: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """S' of (12). Grid: (sequences x heads, blocks of BK rows and BV columns of the state, all independent).

    Forwards `rows`, `columns` are k, v and S is stored before every piece of `span` (a multiple of BT) positions;
    backwards they are r and the gradient of y, and G is stored.
    """
    i_n = tl.program_id(0) // H
    i_h = tl.program_id(0) % H
    o_t = tl.arange(0, BT)
    o_k = (tl.program_id(1) // (V // BV)) * BK + tl.arange(0, BK)
    o_v = (tl.program_id(1) % (V // BV)) * BV + tl.arange(0, BV)
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    # [BV, BK]
    o_s = o_v[:, None] * K + o_k[None, :]
    if HAS_START:
        o_start = o_k[:, None] * V + o_v[None, :]
        b_s = tl.trans(tl.load(start + (i_n * H + i_h).to(tl.int64) * K * V + o_start))
    else:
        b_s = tl.zeros([BV, BK], dtype=tl.float32)
    if CONSTANT:
        # [1, BK]
        b_g = log2_decay(tl.load(w + i_h * K + o_k).to(tl.float32))[None, :]
    states += (first_slot(bos, span, i_n) * H + i_h) * K * V

    T = (eos - bos).to(tl.int32)
    chunks = tl.cdiv(T, BT)
    if chunks == 0:
        tl.store(states + o_s, b_s.to(states.dtype.element_ty))
    for i in range(0, chunks):
        if REVERSE:
            i_t = (chunks - 1 - i) * BT
            at_edge = (i == 0) | ((i_t + BT) % span == 0)
        else:
            i_t = i * BT
            at_edge = i_t % span == 0
        if at_edge:
            p_s = states + (i_t // span).to(tl.int64) * (H * K * V)
            tl.store(p_s + o_s, b_s.to(states.dtype.element_ty))
        i_row = (bos + i_t) * H + i_h
        m_t = (i_t + o_t < T)[:, None]
        o_rk = chunk_offsets(i_row, o_t, o_k, H, K)
        o_rv = chunk_offsets(i_row, o_t, o_v, H, V)
        # [BT, BK], [BT, BV]
        b_x = tl.load(rows + o_rk, mask=m_t, other=0.0)
        b_y = tl.load(columns + o_rv, mask=m_t, other=0.0)
        if not CONSTANT:
            # [BT, BK]
            b_g = log2_decay(tl.load(w + o_rk, mask=m_t, other=float("-inf")).to(tl.float32))
        b_high, b_low = split_bf16(b_g, CONSTANT, DOT_TYPE)
        n_t = tl.minimum(T - i_t, BT)
        if REVERSE:
            b_decay = decay_before(b_high, b_low, o_t, CONSTANT, DOT_TYPE)
        else:
            b_decay = decay_after(b_high, b_low, o_t, n_t, CONSTANT, DOT_TYPE)
        # [BV, BT] @ [BT, BK]
        b_update = dot(tl.trans(b_y), b_x * b_decay, DOT_TYPE)
        b_s = b_s * chunk_decay(b_high, b_low, o_t, n_t, CONSTANT, DOT_TYPE) + b_update
