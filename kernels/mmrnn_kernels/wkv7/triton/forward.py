"""The forward kernel: one pass over a sequence with the state in registers. It gives the outputs, or, for the backward
pass, the states that chunks start from."""

import triton
import triton.language as tl

from ...wkv6.triton.tile import dot, fresh, logs, place
from .tile import insides, over


@triton.jit
def forward_kernel(
    r,
    w,
    k,
    v,
    a,
    b,
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
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    PREC: tl.constexpr,
    FULL: tl.constexpr,
    TARGET: tl.constexpr,
    PACKED: tl.constexpr,
    START: tl.constexpr,
    STATES: tl.constexpr,
):
    """Programs: (sequence, head), then BV columns of the state. With STATES only the states are written."""
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    i = tl.arange(0, C)
    key = tl.arange(0, K)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    first, last = place(bounds, length, n, PACKED)
    mine = (n * H + h).to(tl.int64) * K * V + key[:, None] * V + value[None, :]
    turned = value[:, None] * K + key[None, :]
    s = tl.trans(tl.load(start + mine)) if START else tl.zeros([BV, K], dtype=tl.float32)
    size = (last - first).to(tl.int32)
    for c in range(0, size, C):
        i = fresh(i, c, TARGET)
        below = i[:, None] > i[None, :]
        same = i[:, None] == i[None, :]
        base = (first + c) * H + h
        inside = (c + i < size)[:, None]
        keys = base * K + (i[:, None] * (H * K) + key[None, :])
        values = base * V + (i[:, None] * (H * V) + value[None, :])
        br = tl.load(r + keys, mask=inside, other=0.0).to(tl.float32)
        bk = tl.load(k + keys, mask=inside, other=0.0).to(tl.float32)
        ba = tl.load(a + keys, mask=inside, other=0.0).to(tl.float32)
        bb = tl.load(b + keys, mask=inside, other=0.0).to(tl.float32)
        bv = tl.load(v + values, mask=inside, other=0.0)
        g = logs(tl.load(w + keys, mask=inside, other=float("-inf")).to(tl.float32))
        if STATES:
            tl.store(states + ((first // C + n + c // C) * H + h) * K * V + turned, s)
        own_b = tl.sum(br * bb, 1)[:, None]
        own_k = tl.sum(br * bk, 1)[:, None]
        br *= tl.exp2(g)

        before = over(below, g, FULL)
        after = over(i[:, None] < i[None, :], g, FULL)
        inverse, mixed, rk = insides(br, bk, ba, bb, g, i, LEVELS, PREC, FULL)
        met = dot(ba * before, tl.trans(s), PREC) + dot(tl.where(below, mixed, 0.0), bv, PREC)
        met = tl.dot(inverse, met, input_precision=FULL)
        if not STATES:
            rb = tl.where(below, tl.trans(mixed), tl.where(same, own_b, 0.0))
            y = dot(br * before, tl.trans(s), PREC) + dot(rb, met, PREC)
            y += dot(tl.where(same, own_k, rk), bv, PREC)
            tl.store(out + values, y.to(out.dtype.element_ty), mask=inside)
        whole = tl.exp2(tl.sum(g, 0))[None, :]
        s = s * whole + dot(tl.trans(met), bb * after, PREC) + dot(tl.trans(bv), bk * after, PREC)
    if not STATES:
        tl.store(end + mine, tl.trans(s))
