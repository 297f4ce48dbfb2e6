"""The gradients of r, k, w and u, position by position: what `backward.py` computes from chunks."""

import triton
import triton.language as tl

from .tile import decay, place, slot


@triton.jit
def gradient_kernel(
    r,
    k,
    v,
    w,
    u,
    dout,
    dend,
    states,
    dr,
    dk,
    dw,
    du,
    bounds,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    C: tl.constexpr,
    EVERY: tl.constexpr,
    PACKED: tl.constexpr,
    CONSTANT: tl.constexpr,
    END: tl.constexpr,
):
    """Programs: (sequence, head), then BK rows of the state, whose keys need nothing of the others.

    `states` has S before each EVERY positions. From there it runs forwards again to C positions, where it waits in
    registers for G, which runs backwards.
    """
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    key = tl.program_id(1) * BK + tl.arange(0, BK)
    value = tl.arange(0, V)
    first, last = place(bounds, length, n, PACKED)
    state = key[:, None] * V + value[None, :]
    mine = (n * H + h).to(tl.int64) * K
    grad = tl.load(dend + mine * V + state) if END else tl.zeros([BK, V], dtype=tl.float32)
    bonus = tl.load(u + h * K + key).to(tl.float32)
    dbonus = tl.zeros([BK], dtype=tl.float32)
    if CONSTANT:
        keep, change, _ = decay(tl.load(w + h * K + key).to(tl.float32))
        drate = tl.zeros([BK], dtype=tl.float32)

    size = (last - first).to(tl.int32)
    count = tl.cdiv(size, C)
    states += (slot(first, EVERY, n) * H + h) * K * V
    for turn in range(0, count):
        c = (count - 1 - turn) * C
        s = tl.load(states + (c // EVERY).to(tl.int64) * (H * K * V) + state)
        for t in range(c // EVERY * EVERY, c):
            row = (first + t) * H + h
            bk = tl.load(k + row * K + key).to(tl.float32)
            bv = tl.load(v + row * V + value).to(tl.float32)
            if not CONSTANT:
                keep, change, _ = decay(tl.load(w + row * K + key).to(tl.float32))
            s = s * keep[:, None] + (s * change[:, None] + bk[:, None] * bv[None, :])
        kept = ()
        for j in tl.static_range(C):
            kept += (s,)
            inside = c + j < size
            row = (first + c + j) * H + h
            bk = tl.load(k + row * K + key, mask=inside, other=0.0).to(tl.float32)
            bv = tl.load(v + row * V + value, mask=inside, other=0.0).to(tl.float32)
            bd = tl.load(dout + row * V + value, mask=inside, other=0.0).to(tl.float32)
            if not CONSTANT:
                keep, change, _ = decay(tl.load(w + row * K + key, mask=inside, other=float("-inf")).to(tl.float32))
            gr = tl.sum(s * bd[None, :], 1) + tl.sum(bv * bd, 0) * bonus * bk
            tl.store(dr + row * K + key, gr.to(dr.dtype.element_ty), mask=inside)
            s = s * keep[:, None] + (s * change[:, None] + bk[:, None] * bv[None, :])
        flow = tl.zeros([BK], dtype=tl.float32)
        for j in tl.static_range(C):
            t = c + C - 1 - j
            inside = t < size
            row = (first + t) * H + h
            br = tl.load(r + row * K + key, mask=inside, other=0.0).to(tl.float32)
            bk = tl.load(k + row * K + key, mask=inside, other=0.0).to(tl.float32)
            bv = tl.load(v + row * V + value, mask=inside, other=0.0).to(tl.float32)
            bd = tl.load(dout + row * V + value, mask=inside, other=0.0).to(tl.float32)
            if not CONSTANT:
                keep, change, rate = decay(tl.load(w + row * K + key, mask=inside, other=float("-inf")).to(tl.float32))
            shared = tl.sum(bv * bd, 0)
            dbonus += shared * br * bk
            gk = tl.sum(grad * bv[None, :], 1) + shared * bonus * br
            tl.store(dk + row * K + key, gk.to(dk.dtype.element_ty), mask=inside)
            passing = tl.sum(grad * kept[C - 1 - j], 1)
            if CONSTANT:
                flow += tl.where(inside, passing, 0.0)
                going = tl.where(inside, keep, 1.0)[:, None]
                grad = grad * going + (grad * tl.where(inside, change, 0.0)[:, None] + br[:, None] * bd[None, :])
            else:
                gw = -passing * (keep + change) * rate
                tl.store(dw + row * K + key, gw.to(dw.dtype.element_ty), mask=inside)
                grad = grad * keep[:, None] + (grad * change[:, None] + br[:, None] * bd[None, :])
        if CONSTANT:
            drate += flow
    tl.store(du + mine + key, dbonus)
    if CONSTANT:
        keep, change, rate = decay(tl.load(w + h * K + key).to(tl.float32))  # again: no register to keep it in
        tl.store(dw + mine + key, -drate * (keep + change) * rate)
