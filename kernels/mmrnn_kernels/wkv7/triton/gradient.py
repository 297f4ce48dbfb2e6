"""The gradients of r, w, k, a and b, position by position: what `backward.py` computes from chunks."""

import triton
import triton.language as tl

from ...wkv6.triton.tile import decay, place, slot


@triton.jit
def gradient_kernel(
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
    EVERY: tl.constexpr,
    PACKED: tl.constexpr,
    END: tl.constexpr,
):
    """Programs: (sequence, head), then BK rows of the state: once it is known what a meets, no key needs another.

    `states` has S before each EVERY positions. From there it runs forwards again to C positions, where it waits in
    registers for G, which runs backwards.
    """
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    key = tl.program_id(1) * BK + tl.arange(0, BK)
    value = tl.arange(0, V)
    first, last = place(bounds, length, n, PACKED)
    state = key[:, None] * V + value[None, :]
    mine = (n * H + h).to(tl.int64) * K * V + state
    grad = tl.load(dend + mine) if END else tl.zeros([BK, V], dtype=tl.float32)
    size = (last - first).to(tl.int32)
    count = tl.cdiv(size, C)
    states += (slot(first, EVERY, n) * H + h) * K * V
    for turn in range(0, count):
        c = (count - 1 - turn) * C
        s = tl.load(states + (c // EVERY).to(tl.int64) * (H * K * V) + state)
        for t in range(c // EVERY * EVERY, c):
            row = (first + t) * H + h
            bk = tl.load(k + row * K + key).to(tl.float32)
            bb = tl.load(b + row * K + key).to(tl.float32)
            bv = tl.load(v + row * V + value).to(tl.float32)
            x = tl.load(met + row * V + value)
            keep, change, _ = decay(tl.load(w + row * K + key).to(tl.float32))
            s = s * keep[:, None] + (s * change[:, None] + bb[:, None] * x[None, :] + bk[:, None] * bv[None, :])
        kept = ()
        for j in tl.static_range(C):
            kept += (s,)
            inside = c + j < size
            row = (first + c + j) * H + h
            bk = tl.load(k + row * K + key, mask=inside, other=0.0).to(tl.float32)
            bb = tl.load(b + row * K + key, mask=inside, other=0.0).to(tl.float32)
            bv = tl.load(v + row * V + value, mask=inside, other=0.0).to(tl.float32)
            bd = tl.load(dout + row * V + value, mask=inside, other=0.0).to(tl.float32)
            x = tl.load(met + row * V + value, mask=inside, other=0.0)
            dx = tl.load(dmet + row * V + value, mask=inside, other=0.0)
            keep, change, _ = decay(tl.load(w + row * K + key, mask=inside, other=float("-inf")).to(tl.float32))
            ga = tl.sum(s * dx[None, :], 1)
            tl.store(da + row * K + key, ga.to(da.dtype.element_ty), mask=inside)
            s = s * keep[:, None] + (s * change[:, None] + bb[:, None] * x[None, :] + bk[:, None] * bv[None, :])
            gr = tl.sum(s * bd[None, :], 1)
            tl.store(dr + row * K + key, gr.to(dr.dtype.element_ty), mask=inside)
        for j in tl.static_range(C):
            t = c + C - 1 - j
            inside = t < size
            row = (first + t) * H + h
            br = tl.load(r + row * K + key, mask=inside, other=0.0).to(tl.float32)
            ba = tl.load(a + row * K + key, mask=inside, other=0.0).to(tl.float32)
            bv = tl.load(v + row * V + value, mask=inside, other=0.0).to(tl.float32)
            bd = tl.load(dout + row * V + value, mask=inside, other=0.0).to(tl.float32)
            x = tl.load(met + row * V + value, mask=inside, other=0.0)
            dx = tl.load(dmet + row * V + value, mask=inside, other=0.0)
            keep, change, rate = decay(tl.load(w + row * K + key, mask=inside, other=float("-inf")).to(tl.float32))
            grad += br[:, None] * bd[None, :]
            gk = tl.sum(grad * bv[None, :], 1)
            tl.store(dk + row * K + key, gk.to(dk.dtype.element_ty), mask=inside)
            gb = tl.sum(grad * x[None, :], 1)
            tl.store(db + row * K + key, gb.to(db.dtype.element_ty), mask=inside)
            gw = -tl.sum(grad * kept[C - 1 - j], 1) * (keep + change) * rate
            tl.store(dw + row * K + key, gw.to(dw.dtype.element_ty), mask=inside)
            grad = grad * keep[:, None] + (grad * change[:, None] + ba[:, None] * dx[None, :])
