"""The recurrence itself, position by position, with the state in registers: short sequences, down to one position, and
fp32. The state may move on where it lies.
"""

import triton
import triton.language as tl

from .tile import decay, place, slot


@triton.jit
def recurrent_kernel(
    r,
    k,
    v,
    w,
    u,
    start,
    out,
    end,
    states,
    bounds,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BV: tl.constexpr,
    EVERY: tl.constexpr,
    PACKED: tl.constexpr,
    CONSTANT: tl.constexpr,
    START: tl.constexpr,
    STATES: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Programs: (sequence, head), then BV columns of the state.

    With STATES only S before each EVERY positions is written. In reverse, with r and k exchanged and the gradient of y
    as v, the state is G, and `out` the gradient of v.
    """
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    key = tl.arange(0, K)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    first, last = place(bounds, length, n, PACKED)
    state = key[:, None] * V + value[None, :]
    mine = (n * H + h).to(tl.int64) * K * V + state
    s = tl.load(start + mine) if START else tl.zeros([K, BV], dtype=tl.float32)
    bonus = tl.load(u + h * K + key).to(tl.float32)
    if CONSTANT:
        keep, change, _ = decay(tl.load(w + h * K + key).to(tl.float32))
    if STATES:
        states += (slot(first, EVERY, n) * H + h) * K * V
    size = (last - first).to(tl.int32)
    for step in range(0, size):
        t = size - 1 - step if REVERSE else step
        if STATES:  # this one the compiler decides
            if t % EVERY == 0:
                tl.store(states + state, s)
                states += H * K * V
        row = (first + t) * H + h
        bk = tl.load(k + row * K + key).to(tl.float32)
        bv = tl.load(v + row * V + value).to(tl.float32)
        if not CONSTANT:
            keep, change, _ = decay(tl.load(w + row * K + key).to(tl.float32))
        if not STATES:
            br = tl.load(r + row * K + key).to(tl.float32)
            y = tl.sum(br[:, None] * s, 0) + tl.sum(br * bonus * bk, 0) * bv
            tl.store(out + row * V + value, y.to(out.dtype.element_ty))
        s = s * keep[:, None] + (s * change[:, None] + bk[:, None] * bv[None, :])
    if not STATES:
        tl.store(end + mine, s)
