"""The states that pieces of a sequence start from, or, backwards, the gradients that arrive at their ends."""

import triton
import triton.language as tl

from .tile import after, before, dot, logs, place, slot, split, whole


@triton.jit
def states_kernel(
    rows,
    columns,
    w,
    start,
    states,
    bounds,
    length,
    span,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    PREC: tl.constexpr,
    PACKED: tl.constexpr,
    CONSTANT: tl.constexpr,
    START: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Programs: (sequence, head), then (BK rows, BV columns of the state): no entry of it depends on another.

    Forwards `rows`, `columns` are k, v and S is stored before each piece of `span` (a multiple of C) positions;
    backwards they are r and the gradient of y, and G is stored.
    """
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    i = tl.arange(0, C)
    key = (tl.program_id(1) // (V // BV)) * BK + tl.arange(0, BK)
    value = (tl.program_id(1) % (V // BV)) * BV + tl.arange(0, BV)
    first, last = place(bounds, length, n, PACKED)
    state = key[:, None] * V + value[None, :]
    turned = value[:, None] * K + key[None, :]
    if START:
        s = tl.trans(tl.load(start + (n * H + h).to(tl.int64) * K * V + state))
    else:
        s = tl.zeros([BV, BK], dtype=tl.float32)
    if CONSTANT:
        g = logs(tl.load(w + h * K + key).to(tl.float32))[None, :]
    states += (slot(first, span, n) * H + h) * K * V

    size = (last - first).to(tl.int32)
    count = tl.cdiv(size, C)
    if count == 0:
        tl.store(states + turned, s.to(states.dtype.element_ty))
    for step in range(0, count):
        if REVERSE:
            c = (count - 1 - step) * C
            edge = (step == 0) | ((c + C) % span == 0)
        else:
            c = step * C
            edge = c % span == 0
        if edge:
            here = states + (c // span).to(tl.int64) * (H * K * V)
            tl.store(here + turned, s.to(states.dtype.element_ty))
        base = (first + c) * H + h
        inside = (c + i < size)[:, None]
        keys = base * K + (i[:, None] * (H * K) + key[None, :])
        values = base * V + (i[:, None] * (H * V) + value[None, :])
        x = tl.load(rows + keys, mask=inside, other=0.0)
        y = tl.load(columns + values, mask=inside, other=0.0)
        if not CONSTANT:
            g = logs(tl.load(w + keys, mask=inside, other=float("-inf")).to(tl.float32))
        high, low = split(g, CONSTANT, PREC)
        left = tl.minimum(size - c, C)
        reach = before(high, low, i, CONSTANT, PREC) if REVERSE else after(high, low, i, left, CONSTANT, PREC)
        update = dot(tl.trans(y), x * reach, PREC)
        s = s * whole(high, low, i, left, CONSTANT, PREC) + update
