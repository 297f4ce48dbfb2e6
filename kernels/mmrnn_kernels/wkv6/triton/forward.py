"""The forward kernel: one pass over a sequence, or over a piece of one, with the state in registers; in reverse the
gradient of v.
"""

import triton
import triton.language as tl

from .tile import after, before, decays, dot, logs, pairs, place, right, slot, split, whole


@triton.jit
def forward_kernel(
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
    span,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    PREC: tl.constexpr,
    PACKED: tl.constexpr,
    CONSTANT: tl.constexpr,
    START: tl.constexpr,
    PIECES: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Programs: (sequence, head), then (piece, BV columns of the state).

    In reverse, with r and k exchanged and the gradient of y as v, the state is G, and `out` the gradient of v.
    """
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    piece = tl.program_id(1) // (V // BV)
    i = tl.arange(0, C)
    key = tl.arange(0, K)
    value = (tl.program_id(1) % (V // BV)) * BV + tl.arange(0, BV)
    first, last = place(bounds, length, n, PACKED)
    begin = first + piece * span
    stop = tl.minimum(begin + span, last)
    if (begin >= last) & (piece > 0):
        return  # this sequence has fewer pieces
    state = key[:, None] * V + value[None, :]
    mine = (n * H + h).to(tl.int64) * K * V
    if PIECES:
        s = tl.load(start + ((slot(first, span, n) + piece) * H + h) * K * V + value[:, None] * K + key[None, :])
    elif START:
        s = tl.trans(tl.load(start + mine + state))
    else:
        s = tl.zeros([BV, K], dtype=tl.float32)
    bonus = tl.load(u + h * K + key).to(tl.float32)[None, :]
    if CONSTANT:
        g = logs(tl.load(w + h * K + key).to(tl.float32))[None, :]

    size = (stop - begin).to(tl.int32)
    count = tl.cdiv(size, C)
    for turn in range(0, count):
        c = (count - 1 - turn) * C if REVERSE else turn * C
        base = (begin + c) * H + h
        inside = (c + i < size)[:, None]
        keys = base * K + (i[:, None] * (H * K) + key[None, :])
        values = base * V + (i[:, None] * (H * V) + value[None, :])
        br = tl.load(r + keys, mask=inside, other=0.0).to(tl.float32)
        bk = tl.load(k + keys, mask=inside, other=0.0).to(tl.float32)
        bv = tl.load(v + values, mask=inside, other=0.0)
        if not CONSTANT:
            g = logs(tl.load(w + keys, mask=inside, other=float("-inf")).to(tl.float32))
        high, low = split(g, CONSTANT, PREC)
        left = tl.minimum(size - c, C)

        # The state first: the compiler lays out all products as it does the first, and this shape is the good one.
        if REVERSE:
            y = dot(br * after(high, low, i, left, CONSTANT, PREC), tl.trans(s), PREC)
            update = dot(tl.trans(bv), bk * before(high, low, i, CONSTANT, PREC), PREC)
        else:
            y = dot(br * before(high, low, i, CONSTANT, PREC), tl.trans(s), PREC)
            update = dot(tl.trans(bv), bk * after(high, low, i, left, CONSTANT, PREC), PREC)
        s = s * whole(high, low, i, left, CONSTANT, PREC) + update

        a = tl.where(i[:, None] == i[None, :], tl.sum(br * bonus * bk, 1)[:, None], 0.0)
        late, early = (bk, br) if REVERSE else (br, bk)
        x = tl.where(right(i, 1), late, early)
        a = tl.where(pairs(i, 1), dot(x, tl.trans(x), PREC), a)
        for level in tl.static_range(1, LEVELS):
            x = tl.where(right(i, 1 << level), late, early) * decays(high, low, i, 1 << level, CONSTANT, PREC)
            a = tl.where(pairs(i, 1 << level), dot(x, tl.trans(x), PREC), a)
        # A is lower triangular, in reverse it is its transpose; what was computed has both.
        known = i[:, None] <= i[None, :] if REVERSE else i[:, None] >= i[None, :]
        y += dot(tl.where(known, a, 0.0), bv, PREC)
        tl.store(out + values, y.to(out.dtype.element_ty), mask=inside)
    if not REVERSE:  # this one the compiler decides
        if stop == last:
            tl.store(end + mine + state, tl.trans(s))
