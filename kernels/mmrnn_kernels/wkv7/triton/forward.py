"""The kernel that goes from chunk to chunk with the state in registers: forwards, and in reverse with its gradient."""

import triton
import triton.language as tl

from ...wkv6.triton.tile import dot, fresh, logs, place, slot
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
    met,
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
    REVERSE: tl.constexpr,
):
    """Programs: (sequence, head), then BV columns of the state.

    With STATES no output is written but S before each chunk, turned (values are rows), and what each position meets at
    a. In reverse, with the gradient of y as v, the state is G, `out` the gradient of v, `met` that of what a met, and
    `end` that of the first state.
    """
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    i = tl.arange(0, C)
    key = tl.arange(0, K)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    first, last = place(bounds, length, n, PACKED)
    mine = (n * H + h).to(tl.int64) * K * V + key[:, None] * V + value[None, :]
    turned = value[:, None] * K + key[None, :]
    s = tl.trans(tl.load(start + mine)) if START else tl.zeros([BV, K], dtype=tl.float32)
    if STATES:
        states += (slot(first, C, n) * H + h) * K * V
    size = (last - first).to(tl.int32)
    count = tl.cdiv(size, C)
    for turn in range(0, count):
        c = (count - 1 - turn) * C if REVERSE else turn * C
        i = fresh(i, c, TARGET)
        below = i[:, None] > i[None, :]
        above = i[:, None] < i[None, :]
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
            tl.store(states + turned, s.to(states.dtype.element_ty))
            states += H * K * V
        own_b = tl.sum(br * bb, 1)[:, None]
        own_k = tl.sum(br * bk, 1)[:, None]
        br *= tl.exp2(g)

        inverse, mixed, rk = insides(br, bk, ba, bb, g, i, LEVELS, PREC, FULL)
        ak = tl.where(below, mixed, 0.0)
        rb = tl.where(above, mixed, tl.where(same, own_b, 0.0))  # A_rb, turned
        rk = tl.where(same, own_k, rk)
        before = over(below, g, FULL)
        after = over(above, g, FULL)
        whole = tl.exp2(tl.sum(g, 0))[None, :]
        if REVERSE:
            x = dot(bb * after, tl.trans(s), PREC) + dot(rb, bv, PREC)
            x = tl.dot(tl.trans(inverse), x, input_precision=FULL)
            y = dot(bk * after, tl.trans(s), PREC) + dot(tl.trans(rk), bv, PREC) + dot(tl.trans(ak), x, PREC)
            s = s * whole + dot(tl.trans(x), ba * before, PREC) + dot(tl.trans(bv), br * before, PREC)
        else:
            x = dot(ba * before, tl.trans(s), PREC) + dot(ak, bv, PREC)
            x = tl.dot(inverse, x, input_precision=FULL)
            if not STATES:
                y = dot(br * before, tl.trans(s), PREC) + dot(tl.trans(rb), x, PREC) + dot(rk, bv, PREC)
            s = s * whole + dot(tl.trans(x), bb * after, PREC) + dot(tl.trans(bv), bk * after, PREC)
        if not STATES:
            tl.store(out + values, y.to(out.dtype.element_ty), mask=inside)
        if STATES or REVERSE:
            tl.store(met + values, x.to(met.dtype.element_ty), mask=inside)
    if not STATES:
        tl.store(end + mine, tl.trans(s))
