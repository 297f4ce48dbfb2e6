"""Forward kernel by chunks: one pass over a sequence, or over a piece of one, with the state in registers."""

import triton
import triton.language as tl

from ...common.triton.primitives import (
    chunk_offsets,
    dot,
    first_slot,
    level_pairs,
    log2_decay,
    right_half,
    sequence_bounds,
)
from .levels import chunk_decay, decay_after, decay_before, level_decay, split_bf16


@triton.jit
def chunk_scores(
    b_late,
    b_early,
    b_own,
    b_high,
    b_low,
    o_t,
    LEVELS: tl.constexpr,
    CONSTANT: tl.constexpr,
    DOT_TYPE: tl.constexpr,
):
    """A of (15) with its transpose on the other side of the diagonal, `b_own`.

    Late positions read, early ones write: r and k, in reverse k and r.
    """
    # [BT, BT]
    b_a = tl.where(o_t[:, None] == o_t[None, :], b_own, 0.0)
    # [BT, K]
    b_x = tl.where(right_half(o_t, 1), b_late, b_early)
    b_a = tl.where(level_pairs(o_t, 1), dot(b_x, tl.trans(b_x), DOT_TYPE), b_a)
    for i_l in tl.static_range(1, LEVELS):
        b_decay = level_decay(b_high, b_low, o_t, 1 << i_l, CONSTANT, DOT_TYPE)
        b_x = tl.where(right_half(o_t, 1 << i_l), b_late, b_early) * b_decay
        b_a = tl.where(level_pairs(o_t, 1 << i_l), dot(b_x, tl.trans(b_x), DOT_TYPE), b_a)
    return b_a


@triton.jit
def chunk_forward_kernel(
    r,
    k,
    v,
    w,
    u,
    start,
    out,
    end,
    cu_seqlens,
    length,
    span,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BV: tl.constexpr,
    BT: tl.constexpr,
    LEVELS: tl.constexpr,
    DOT_TYPE: tl.constexpr,
    PACKED: tl.constexpr,
    CONSTANT: tl.constexpr,
    HAS_START: tl.constexpr,
    HAS_PIECES: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Equation (12). Grid: (sequences x heads, pieces x blocks of BV columns of the state).

    In reverse, with r and k exchanged and the gradient of y as v, the state is G and `out` the gradient of v.
    """
    i_n = tl.program_id(0) // H
    i_h = tl.program_id(0) % H
    i_piece = tl.program_id(1) // (V // BV)
    o_t = tl.arange(0, BT)
    o_k = tl.arange(0, K)
    o_v = (tl.program_id(1) % (V // BV)) * BV + tl.arange(0, BV)
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    i_begin = bos + i_piece * span
    i_end = tl.minimum(i_begin + span, eos)
    if (i_begin >= eos) & (i_piece > 0):
        return  # this sequence has fewer pieces
    o_s = o_k[:, None] * V + o_v[None, :]
    o_state = (i_n * H + i_h).to(tl.int64) * K * V
    # [BV, K]
    if HAS_PIECES:
        i_slot = (first_slot(bos, span, i_n) + i_piece) * H + i_h
        b_s = tl.load(start + i_slot * K * V + o_v[:, None] * K + o_k[None, :])
    elif HAS_START:
        b_s = tl.trans(tl.load(start + o_state + o_s))
    else:
        b_s = tl.zeros([BV, K], dtype=tl.float32)
    # [1, K]
    b_u = tl.load(u + i_h * K + o_k).to(tl.float32)[None, :]
    if CONSTANT:
        b_g = log2_decay(tl.load(w + i_h * K + o_k).to(tl.float32))[None, :]

    T = (i_end - i_begin).to(tl.int32)
    chunks = tl.cdiv(T, BT)
    for i in range(0, chunks):
        i_t = (chunks - 1 - i) * BT if REVERSE else i * BT
        i_row = (i_begin + i_t) * H + i_h
        m_t = (i_t + o_t < T)[:, None]
        o_rk = chunk_offsets(i_row, o_t, o_k, H, K)
        o_rv = chunk_offsets(i_row, o_t, o_v, H, V)
        # [BT, K], [BT, K], [BT, BV]
        b_r = tl.load(r + o_rk, mask=m_t, other=0.0).to(tl.float32)
        b_k = tl.load(k + o_rk, mask=m_t, other=0.0).to(tl.float32)
        b_v = tl.load(v + o_rv, mask=m_t, other=0.0)
        if not CONSTANT:
            b_g = log2_decay(tl.load(w + o_rk, mask=m_t, other=float("-inf")).to(tl.float32))
        b_high, b_low = split_bf16(b_g, CONSTANT, DOT_TYPE)
        n_t = tl.minimum(T - i_t, BT)

        # The state first: the compiler lays out all products as it does the first, and this shape is the good one.
        # [BT, K] @ [K, BV], then [BV, BT] @ [BT, K]
        if REVERSE:
            b_y = dot(b_r * decay_after(b_high, b_low, o_t, n_t, CONSTANT, DOT_TYPE), tl.trans(b_s), DOT_TYPE)
            b_update = dot(tl.trans(b_v), b_k * decay_before(b_high, b_low, o_t, CONSTANT, DOT_TYPE), DOT_TYPE)
        else:
            b_y = dot(b_r * decay_before(b_high, b_low, o_t, CONSTANT, DOT_TYPE), tl.trans(b_s), DOT_TYPE)
            b_update = dot(tl.trans(b_v), b_k * decay_after(b_high, b_low, o_t, n_t, CONSTANT, DOT_TYPE), DOT_TYPE)
        b_s = b_s * chunk_decay(b_high, b_low, o_t, n_t, CONSTANT, DOT_TYPE) + b_update

        b_own = tl.sum(b_r * b_u * b_k, 1)[:, None]
        b_late, b_early = (b_k, b_r) if REVERSE else (b_r, b_k)
        b_a = chunk_scores(b_late, b_early, b_own, b_high, b_low, o_t, LEVELS, CONSTANT, DOT_TYPE)
        # A is lower triangular, in reverse it is its transpose; the scores have both.
        m_a = o_t[:, None] <= o_t[None, :] if REVERSE else o_t[:, None] >= o_t[None, :]
        b_y += dot(tl.where(m_a, b_a, 0.0), b_v, DOT_TYPE)
        tl.store(out + o_rv, b_y.to(out.dtype.element_ty), mask=m_t)
    if not REVERSE:  # a condition of its own, since this one is decided at compile time
        if i_end == eos:
            tl.store(end + o_state + o_s, tl.trans(b_s))
