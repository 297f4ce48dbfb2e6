"""Short sequences, down to a single position: the recurrence itself. The state may move on where it lies."""

import triton
import triton.language as tl

from .tile import logs, place


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
    bounds,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BV: tl.constexpr,
    PACKED: tl.constexpr,
    CONSTANT: tl.constexpr,
    START: tl.constexpr,
):
    """Programs: (sequence, head), then BV columns of the state."""
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    key = tl.arange(0, K)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    first, last = place(bounds, length, n, PACKED)
    state = (n * H + h).to(tl.int64) * K * V + key[:, None] * V + value[None, :]
    s = tl.load(start + state) if START else tl.zeros([K, BV], dtype=tl.float32)
    bonus = tl.load(u + h * K + key).to(tl.float32)
    if CONSTANT:
        g = logs(tl.load(w + h * K + key).to(tl.float32))
    for t in range(0, (last - first).to(tl.int32)):
        row = (first + t) * H + h
        br = tl.load(r + row * K + key).to(tl.float32)
        bk = tl.load(k + row * K + key).to(tl.float32)
        bv = tl.load(v + row * V + value).to(tl.float32)
        if not CONSTANT:
            g = logs(tl.load(w + row * K + key).to(tl.float32))
        y = tl.sum(br[:, None] * s, 0) + tl.sum(br * bonus * bk, 0) * bv
        tl.store(out + row * V + value, y.to(out.dtype.element_ty))
        s = s * tl.exp2(g)[:, None] + bk[:, None] * bv[None, :]
    tl.store(end + state, s)
