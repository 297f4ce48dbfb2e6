"""The gradients of r, w, k, a and b: chunks from the last to the first, with the gradient of the state in registers."""

import triton
import triton.language as tl

from ...wkv6.triton.tile import LOG2E, dot, fresh, logs, pairs, place, reached, slot
from .tile import level, over


@triton.jit
def backward_kernel(
    r,
    w,
    k,
    v,
    a,
    b,
    met,
    dmet,
    dout,
    dend,
    states,
    dr,
    dw,
    dk,
    da,
    db,
    bounds,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    PREC: tl.constexpr,
    FULL: tl.constexpr,
    TARGET: tl.constexpr,
    PACKED: tl.constexpr,
    END: tl.constexpr,
):
    """Programs: (sequence, head), then BK rows of the state: once it is known what a meets, no key needs another.

    `states` has S before each chunk, turned (values are rows).
    """
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    i = tl.arange(0, C)
    key = tl.program_id(1) * BK + tl.arange(0, BK)
    value = tl.arange(0, V)
    first, last = place(bounds, length, n, PACKED)
    if END:
        grad = tl.trans(tl.load(dend + (n * H + h).to(tl.int64) * K * V + key[:, None] * V + value[None, :]))
    else:
        grad = tl.zeros([V, BK], dtype=tl.float32)
    states += (slot(first, C, n) * H + h) * K * V
    turned = value[:, None] * K + key[None, :]
    size = (last - first).to(tl.int32)
    count = tl.cdiv(size, C)
    for turn in range(0, count):
        chunk = count - 1 - turn
        c = chunk * C
        i = fresh(i, turn, TARGET)
        below = i[:, None] > i[None, :]
        above = i[:, None] < i[None, :]
        base = (first + c) * H + h
        inside = (c + i < size)[:, None]
        keys = base * K + (i[:, None] * (H * K) + key[None, :])
        values = base * V + (i[:, None] * (H * V) + value[None, :])
        br = tl.load(r + keys, mask=inside, other=0.0).to(tl.float32)
        bk = tl.load(k + keys, mask=inside, other=0.0).to(tl.float32)
        ba = tl.load(a + keys, mask=inside, other=0.0).to(tl.float32)
        bb = tl.load(b + keys, mask=inside, other=0.0).to(tl.float32)
        bv = tl.load(v + values, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dout + values, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(met + values, mask=inside, other=0.0).to(tl.float32)
        dx = tl.load(dmet + values, mask=inside, other=0.0).to(tl.float32)
        g = logs(tl.load(w + keys, mask=inside, other=float("-inf")).to(tl.float32))
        s = tl.load(states + chunk.to(tl.int64) * (H * K * V) + turned)

        late = br * tl.exp2(g)
        before = over(below, g, FULL)
        after = over(above, g, FULL)
        whole = tl.exp2(tl.sum(g, 0))[None, :]

        # Of what goes beyond the chunk: gradients of the bare reads and writes, and what passes over each position.
        ga = dot(dx, s, PREC) * before
        gr = dot(dy, s, PREC) * before
        gb = dot(x, grad, PREC) * after
        gk = dot(bv, grad, PREC) * after
        flow = tl.sum(s * grad, 0)[None, :] * whole
        flow += tl.dot(above.to(tl.float32), ga * ba + gr * late, input_precision=FULL)
        flow += tl.dot(below.to(tl.float32), gb * bb + gk * bk, input_precision=FULL)
        grad = grad * whole + dot(tl.trans(dx), ba * before, PREC) + dot(tl.trans(dy), late * before, PREC)

        of_ab = dot(dx, tl.trans(x), PREC)
        of_rk = dot(dy, tl.trans(bv), PREC)
        # A_ak below the diagonal, A_rb turned above it, as the inside has them.
        of_mixed = tl.where(below, dot(dx, tl.trans(bv), PREC), dot(x, tl.trans(dy), PREC))
        of_ab = tl.where(below, of_ab, tl.trans(of_ab))
        of_rk = tl.where(below, of_rk, tl.trans(of_rk))
        for step in tl.static_range(LEVELS):
            near = pairs(i, 1 << step)
            right = ((i & (1 << step)) != 0)[:, None]
            ab, way = level(ba, bb, g, i, 1 << step, FULL)
            rk, _ = level(late, bk, g, i, 1 << step, FULL)
            between = tl.where(near, of_mixed, 0.0)
            of_first = dot(tl.where(near, of_ab, 0.0), ab, PREC) + dot(between, rk, PREC)
            of_late = dot(tl.where(near, of_rk, 0.0), rk, PREC) + dot(tl.trans(between), ab, PREC)
            turned_reach = tl.trans(reached(i, 1 << step).to(tl.float32))
            flow += tl.dot(turned_reach, of_first * ab + of_late * rk, input_precision=FULL)
            of_first *= way
            of_late *= way
            ga += tl.where(right, of_first, 0.0)
            gr += tl.where(right, of_late, 0.0)
            gb += tl.where(right, 0.0, of_first)
            gk += tl.where(right, 0.0, of_late)

        of_b = tl.sum(dy * x, 1)[:, None]
        of_k = tl.sum(dy * bv, 1)[:, None]
        flow += gr * late
        tl.store(da + keys, ga.to(da.dtype.element_ty), mask=inside)
        tl.store(dw + keys, (flow * g * (1 / LOG2E)).to(dw.dtype.element_ty), mask=inside)
        tl.store(dr + keys, (gr * tl.exp2(g) + of_b * bb + of_k * bk).to(dr.dtype.element_ty), mask=inside)
        tl.store(db + keys, (gb + of_b * br).to(db.dtype.element_ty), mask=inside)
        tl.store(dk + keys, (gk + of_k * br).to(dk.dtype.element_ty), mask=inside)
