"""Forward kernel by chunks, with the state in registers; in reverse, with its gradient."""

import triton
import triton.language as tl

from ...common.triton.primitives import (
    chunk_offsets,
    dot,
    first_slot,
    hide_loop_invariance,
    log2_decay,
    sequence_bounds,
)
from .levels import chunk_scores, masked_decay


@triton.jit
def chunk_forward_kernel(
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
    states,
    cu_seqlens,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BV: tl.constexpr,
    BT: tl.constexpr,
    LEVELS: tl.constexpr,
    DOT_TYPE: tl.constexpr,
    EXACT_TYPE: tl.constexpr,
    TARGET: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_START: tl.constexpr,
    STORE_STATES: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Equations (8) to (10). Grid: (sequences x heads, blocks of BV columns of the state).

    With STORE_STATES neither `out` nor `end` is stored, but S before each chunk, transposed (`v k`), and U in `reads`.
    In reverse, with the gradient of y as v, (11) and (12): the state is G, `out` the gradient of v, `reads` that of U,
    and `end` that of the initial state.
    """
    i_n = tl.program_id(0) // H
    i_h = tl.program_id(0) % H
    o_t = tl.arange(0, BT)
    o_k = tl.arange(0, K)
    o_v = tl.program_id(1) * BV + tl.arange(0, BV)
    bos, eos = sequence_bounds(cu_seqlens, length, i_n, PACKED)
    o_state = (i_n * H + i_h).to(tl.int64) * K * V + o_k[:, None] * V + o_v[None, :]
    # [BV, K]
    o_s = o_v[:, None] * K + o_k[None, :]
    b_s = tl.trans(tl.load(start + o_state)) if HAS_START else tl.zeros([BV, K], dtype=tl.float32)
    if STORE_STATES:
        states += (first_slot(bos, BT, i_n) * H + i_h) * K * V
    T = (eos - bos).to(tl.int32)
    chunks = tl.cdiv(T, BT)
    for i in range(0, chunks):
        i_t = (chunks - 1 - i) * BT if REVERSE else i * BT
        o_t = hide_loop_invariance(o_t, i_t, TARGET)
        # [BT, BT]
        m_lower = o_t[:, None] > o_t[None, :]
        m_upper = o_t[:, None] < o_t[None, :]
        m_own = o_t[:, None] == o_t[None, :]
        i_row = (bos + i_t) * H + i_h
        m_t = (i_t + o_t < T)[:, None]
        o_rk = chunk_offsets(i_row, o_t, o_k, H, K)
        o_rv = chunk_offsets(i_row, o_t, o_v, H, V)
        # [BT, K]
        b_r = tl.load(r + o_rk, mask=m_t, other=0.0).to(tl.float32)
        b_k = tl.load(k + o_rk, mask=m_t, other=0.0).to(tl.float32)
        b_a = tl.load(a + o_rk, mask=m_t, other=0.0).to(tl.float32)
        b_b = tl.load(b + o_rk, mask=m_t, other=0.0).to(tl.float32)
        # [BT, BV]
        b_v = tl.load(v + o_rv, mask=m_t, other=0.0)
        # [BT, K]
        b_g = log2_decay(tl.load(w + o_rk, mask=m_t, other=float("-inf")).to(tl.float32))
        if STORE_STATES:
            tl.store(states + o_s, b_s.to(states.dtype.element_ty))
            states += H * K * V
        # [BT, 1]
        b_own_b = tl.sum(b_r * b_b, 1)[:, None]
        b_own_k = tl.sum(b_r * b_k, 1)[:, None]
        b_r *= tl.exp2(b_g)

        # [BT, BT]
        b_inverse, b_mixed, b_rk = chunk_scores(b_r, b_k, b_a, b_b, b_g, o_t, LEVELS, DOT_TYPE, EXACT_TYPE)
        b_ak = tl.where(m_lower, b_mixed, 0.0)
        b_rb = tl.where(m_upper, b_mixed, tl.where(m_own, b_own_b, 0.0))  # A_rb transposed
        b_rk = tl.where(m_own, b_own_k, b_rk)
        # [BT, K], [BT, K], [1, K]
        b_before = masked_decay(m_lower, b_g, EXACT_TYPE)
        b_after = masked_decay(m_upper, b_g, EXACT_TYPE)
        b_whole = tl.exp2(tl.sum(b_g, 0))[None, :]
        # x, y: [BT, K] @ [K, BV] + [BT, BT] @ [BT, BV]; s: [BV, BT] @ [BT, K]
        if REVERSE:
            b_x = dot(b_b * b_after, tl.trans(b_s), DOT_TYPE) + dot(b_rb, b_v, DOT_TYPE)
            b_x = tl.dot(tl.trans(b_inverse), b_x, input_precision=EXACT_TYPE)
            b_y = dot(b_k * b_after, tl.trans(b_s), DOT_TYPE) + dot(tl.trans(b_rk), b_v, DOT_TYPE)
            b_y += dot(tl.trans(b_ak), b_x, DOT_TYPE)
            b_s = b_s * b_whole + dot(tl.trans(b_x), b_a * b_before, DOT_TYPE)
            b_s += dot(tl.trans(b_v), b_r * b_before, DOT_TYPE)
        else:
            b_x = dot(b_a * b_before, tl.trans(b_s), DOT_TYPE) + dot(b_ak, b_v, DOT_TYPE)
            b_x = tl.dot(b_inverse, b_x, input_precision=EXACT_TYPE)
            if not STORE_STATES:
                b_y = dot(b_r * b_before, tl.trans(b_s), DOT_TYPE) + dot(tl.trans(b_rb), b_x, DOT_TYPE)
                b_y += dot(b_rk, b_v, DOT_TYPE)
            b_s = b_s * b_whole + dot(tl.trans(b_x), b_b * b_after, DOT_TYPE)
            b_s += dot(tl.trans(b_v), b_k * b_after, DOT_TYPE)
        if not STORE_STATES:
            tl.store(out + o_rv, b_y.to(out.dtype.element_ty), mask=m_t)
        if STORE_STATES or REVERSE:
            tl.store(reads + o_rv, b_x.to(reads.dtype.element_ty), mask=m_t)
    if not STORE_STATES:
        tl.store(end + o_state, tl.trans(b_s))
