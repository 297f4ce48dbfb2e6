"""The backward kernel: chunks from the last to the first, with the gradient of the state in registers."""

import triton
import triton.language as tl

from ...wkv6.triton.tile import LOG2E, dot, fresh, logs, pairs, place, reached
from .tile import insides, level, over


@triton.jit
def backward_kernel(
    r,
    w,
    k,
    v,
    a,
    b,
    dout,
    dend,
    states,
    dr,
    dw,
    dk,
    dv,
    da,
    db,
    dstart,
    bounds,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    PREC: tl.constexpr,
    FULL: tl.constexpr,
    TARGET: tl.constexpr,
    PACKED: tl.constexpr,
    END: tl.constexpr,
):
    """Programs: (sequence, head)."""
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    i = tl.arange(0, C)
    key = tl.arange(0, K)
    value = tl.arange(0, V)
    first, last = place(bounds, length, n, PACKED)
    mine = (n * H + h).to(tl.int64) * K * V + key[:, None] * V + value[None, :]
    turned = value[:, None] * K + key[None, :]
    grad = tl.trans(tl.load(dend + mine)) if END else tl.zeros([V, K], dtype=tl.float32)
    size = (last - first).to(tl.int32)
    count = tl.cdiv(size, C)
    for turn in range(0, count):
        c = (count - 1 - turn) * C
        i = fresh(i, turn, TARGET)
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
        bv = tl.load(v + values, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dout + values, mask=inside, other=0.0).to(tl.float32)
        g = logs(tl.load(w + keys, mask=inside, other=float("-inf")).to(tl.float32))
        s = tl.load(states + ((first // C + n + c // C) * H + h) * K * V + turned)

        decay = tl.exp2(g)
        late = br * decay
        before = over(below, g, FULL)
        after = over(above, g, FULL)
        whole = tl.exp2(tl.sum(g, 0))[None, :]
        inverse, mixed, rk = insides(late, bk, ba, bb, g, i, LEVELS, PREC, FULL)
        ak = tl.where(below, mixed, 0.0)
        br_ = tl.where(above, mixed, tl.where(same, tl.sum(br * bb, 1)[:, None], 0.0))  # A_rb, turned
        rk = tl.where(same, tl.sum(br * bk, 1)[:, None], rk)
        met = dot(ba * before, tl.trans(s), PREC) + dot(ak, bv, PREC)
        met = tl.dot(inverse, met, input_precision=FULL)
        dmet = dot(bb * after, tl.trans(grad), PREC) + dot(br_, dy, PREC)
        dmet = tl.dot(tl.trans(inverse), dmet, input_precision=FULL)
        dvalue = dot(bk * after, tl.trans(grad), PREC) + dot(tl.trans(rk), dy, PREC) + dot(tl.trans(ak), dmet, PREC)
        tl.store(dv + values, dvalue.to(dv.dtype.element_ty), mask=inside)

        # Of what goes beyond the chunk: gradients of the bare reads and writes, and what passes over each position.
        ga = dot(dmet, s, PREC) * before
        gr = dot(dy, s, PREC) * before
        gb = dot(met, grad, PREC) * after
        gk = dot(bv, grad, PREC) * after
        flow = tl.sum(s * grad, 0)[None, :] * whole
        flow += tl.dot(above.to(tl.float32), ga * ba + gr * late, input_precision=FULL)
        flow += tl.dot(below.to(tl.float32), gb * bb + gk * bk, input_precision=FULL)
        grad = grad * whole + dot(tl.trans(dmet), ba * before, PREC) + dot(tl.trans(dy), late * before, PREC)

        of_ab = dot(dmet, tl.trans(met), PREC)
        of_rk = dot(dy, tl.trans(bv), PREC)
        # A_ak below the diagonal, A_rb turned above it, as the inside has them.
        of_mixed = tl.where(below, dot(dmet, tl.trans(bv), PREC), dot(met, tl.trans(dy), PREC))
        of_ab = tl.where(below, of_ab, tl.trans(of_ab))
        of_rk = tl.where(below, of_rk, tl.trans(of_rk))
        for step in tl.static_range(LEVELS):
            near = pairs(i, 1 << step)
            right = ((i & (1 << step)) != 0)[:, None]
            x, way = level(ba, bb, g, i, 1 << step, FULL)
            z, _ = level(late, bk, g, i, 1 << step, FULL)
            between = tl.where(near, of_mixed, 0.0)
            dx = dot(tl.where(near, of_ab, 0.0), x, PREC) + dot(between, z, PREC)
            dz = dot(tl.where(near, of_rk, 0.0), z, PREC) + dot(tl.trans(between), x, PREC)
            turned_reach = tl.trans(reached(i, 1 << step).to(tl.float32))
            flow += tl.dot(turned_reach, dx * x + dz * z, input_precision=FULL)
            dx *= way
            dz *= way
            ga += tl.where(right, dx, 0.0)
            gr += tl.where(right, dz, 0.0)
            gb += tl.where(right, 0.0, dx)
            gk += tl.where(right, 0.0, dz)

        of_b = tl.sum(dy * met, 1)[:, None]
        of_k = tl.sum(dy * bv, 1)[:, None]
        flow += gr * late
        tl.store(da + keys, ga.to(da.dtype.element_ty), mask=inside)
        tl.store(dw + keys, (flow * g * (1 / LOG2E)).to(dw.dtype.element_ty), mask=inside)
        tl.store(dr + keys, (gr * decay + of_b * bb + of_k * bk).to(dr.dtype.element_ty), mask=inside)
        tl.store(db + keys, (gb + of_b * br).to(db.dtype.element_ty), mask=inside)
        tl.store(dk + keys, (gk + of_k * br).to(dk.dtype.element_ty), mask=inside)
    tl.store(dstart + mine, tl.trans(grad))
