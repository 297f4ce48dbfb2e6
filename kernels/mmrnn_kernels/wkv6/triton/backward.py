"""The gradients: backwards over a sequence, or over a piece of one, with the gradient of the state in registers."""

import triton
import triton.language as tl

from .tile import (
    LOG2E,
    after,
    before,
    behind,
    decays,
    dot,
    fresh,
    logs,
    pairs,
    place,
    reached,
    right,
    slot,
    split,
    steps,
    whole,
)


@triton.jit
def pull(x, mask, count, CONSTANT: tl.constexpr, PREC: tl.constexpr):
    """Back from the exponents to the logarithms: `mask.T @ x`. One decay for all positions gets it added up later."""
    if CONSTANT:
        return count * x
    else:
        return dot(mask.to(tl.float32), x, PREC)


@triton.jit
def backward_kernel(
    r,
    k,
    v,
    w,
    u,
    dout,
    dend,
    states,
    ends,
    dr,
    dk,
    dv,
    dw,
    du,
    dstart,
    bounds,
    length,
    span,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    PREC: tl.constexpr,
    TARGET: tl.constexpr,
    PACKED: tl.constexpr,
    CONSTANT: tl.constexpr,
    END: tl.constexpr,
    PIECES: tl.constexpr,
    VALUES: tl.constexpr,
):
    """Programs: (sequence, head), then (piece, BK rows of the state): no key needs anything of another, but dv does.

    `states` has S before each chunk, `ends` G after each piece, both turned (values are rows). dv is a sum over keys,
    computed with VALUES, where a program has all of them.
    """
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    i = tl.arange(0, C)
    piece = tl.program_id(1) // (K // BK)
    key = (tl.program_id(1) % (K // BK)) * BK + tl.arange(0, BK)
    value = tl.arange(0, V)
    first, last = place(bounds, length, n, PACKED)
    begin = first + piece * span
    stop = tl.minimum(begin + span, last)
    if (begin >= last) & (piece > 0):
        return  # this sequence has fewer pieces
    mine = (slot(first, span, n) + piece) * H + h
    turned = value[:, None] * K + key[None, :]
    if PIECES:
        grad = tl.load(ends + mine * K * V + turned)
    elif END:
        state = (n * H + h).to(tl.int64) * K * V + key[:, None] * V + value[None, :]
        grad = tl.trans(tl.load(dend + state))
    else:
        grad = tl.zeros([V, BK], dtype=tl.float32)
    dbonus = tl.zeros([BK], dtype=tl.float32)
    if CONSTANT:
        rate = tl.load(w + h * K + key).to(tl.float32)
        g = logs(rate)[None, :]
        drate = tl.zeros([BK], dtype=tl.float32)

    size = (stop - begin).to(tl.int32)
    count = tl.cdiv(size, C)
    states += ((slot(first, C, n) + (begin - first) // C) * H + h) * K * V
    for step in range(0, count):
        chunk = count - 1 - step
        c = chunk * C
        base = (begin + c) * H + h
        m = fresh(i, c, TARGET)
        inside = (c + m < size)[:, None]
        keys = base * K + (m[:, None] * (H * K) + key[None, :])
        values = base * V + (m[:, None] * (H * V) + value[None, :])
        bonus = tl.load(u + h * K + key).to(tl.float32)[None, :]  # here: no registers to keep it in
        br = tl.load(r + keys, mask=inside, other=0.0).to(tl.float32)
        bk = tl.load(k + keys, mask=inside, other=0.0).to(tl.float32)
        if VALUES:
            own = tl.sum(br * bonus * bk, 1)  # here, where the inputs still lie as they were loaded
        bv = tl.load(v + values, mask=inside, other=0.0)
        bd = tl.load(dout + values, mask=inside, other=0.0)
        if not CONSTANT:
            g = logs(tl.load(w + keys, mask=inside, other=float("-inf")).to(tl.float32))
        high, low = split(g, CONSTANT, PREC)
        left = tl.minimum(size - c, C)

        # Both ways at once: [t, s] and [s, t] have the gradient of A[t, s].
        lower = m[:, None] >= m[None, :]
        da = tl.where(lower, dot(bd, tl.trans(bv), PREC), dot(bv, tl.trans(bd), PREC))
        shared = tl.sum(tl.where(m[:, None] == m[None, :], da, 0.0), 1)[:, None]
        gr = shared * bonus * bk
        gk = shared * bonus * br
        around = tl.zeros_like(gr)
        dbonus += tl.sum(shared * br * bk, 0)
        x = tl.where(right(m, 1), br, bk)
        part = dot(tl.where(pairs(m, 1), da, 0.0), x, PREC)
        side = right(m, 1).to(tl.float32)
        gr += part * side
        gk += part * (1.0 - side)
        if VALUES:
            a = tl.where(m[:, None] == m[None, :], own[:, None], 0.0)
            a = tl.where(pairs(m, 1), dot(x, tl.trans(x), PREC), a)
        for level in tl.static_range(1, LEVELS):
            reach = decays(high, low, m, 1 << level, CONSTANT, PREC)
            x = tl.where(right(m, 1 << level), br, bk) * reach
            if VALUES:
                a = tl.where(pairs(m, 1 << level), dot(x, tl.trans(x), PREC), a)
            part = dot(tl.where(pairs(m, 1 << level), da, 0.0), x, PREC)
            around += pull(x * part, tl.trans(reached(m, 1 << level)), steps(m, 1 << level), CONSTANT, PREC)
            part *= reach
            side = right(m, 1 << level).to(tl.float32)
            gr += part * side
            gk += part * (1.0 - side)

        # With the rest of the sequence. Not before, and loaded again: there are no registers for both at once.
        bv = tl.load(v + values, mask=inside, other=0.0)
        bd = tl.load(dout + values, mask=inside, other=0.0)
        s = tl.load(states + chunk.to(tl.int64) * (H * K * V) + turned)
        decay = whole(high, low, m, left, CONSTANT, PREC)
        over = decay * tl.sum(s * grad, 0)[None, :] * (left.to(tl.float32) / C if CONSTANT else 1.0)
        reach = before(high, low, m, CONSTANT, PREC)
        rp = br * reach
        more = reach * dot(bd, s, PREC)
        gr += more
        around += over + pull(br * more, m[:, None] < m[None, :], m[:, None].to(tl.float32), CONSTANT, PREC)
        reach = after(high, low, m, left, CONSTANT, PREC)
        more = reach * dot(bv, grad, PREC)
        gk += more
        around += pull(bk * more, m[:, None] > m[None, :], behind(m, left), CONSTANT, PREC)
        if VALUES:
            gv = dot(bk * reach, tl.trans(grad), PREC)
        grad = grad * decay + dot(tl.trans(bd), rp, PREC)

        tl.store(dr + keys, gr.to(dr.dtype.element_ty), mask=inside)
        tl.store(dk + keys, gk.to(dk.dtype.element_ty), mask=inside)
        if VALUES:
            # A is lower triangular, this is its transpose.
            gv += dot(tl.where(m[:, None] <= m[None, :], a, 0.0), bd, PREC)
            tl.store(dv + values, gv.to(dv.dtype.element_ty), mask=inside)
        if CONSTANT:
            drate += tl.sum(around, 0)
        else:
            # g is -log2(e) exp(w), computed again: it has no register to wait in.
            g = logs(tl.load(w + keys, mask=inside, other=float("-inf")).to(tl.float32))
            tl.store(dw + keys, (around * g * (1 / LOG2E)).to(dw.dtype.element_ty), mask=inside)
    tl.store(du + mine * K + key, dbonus)
    if CONSTANT:
        tl.store(dw + mine * K + key, drate * logs(rate) * (1 / LOG2E))
    if piece == 0:
        state = (n * H + h).to(tl.int64) * K * V + key[:, None] * V + value[None, :]
        tl.store(dstart + state, tl.trans(grad))
