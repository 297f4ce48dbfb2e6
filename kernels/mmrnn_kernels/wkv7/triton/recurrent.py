"""The recurrence itself, position by position, with the state in registers: forwards, and backwards in time."""

import triton
import triton.language as tl

from ...wkv6.triton.tile import decay, place, slot


@triton.jit
def recurrent_kernel(
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
    EVERY: tl.constexpr,
    PACKED: tl.constexpr,
    START: tl.constexpr,
    STATES: tl.constexpr,
):
    """Programs: (sequence, head), then BV columns of the state.

    With STATES no output is written but S before each EVERY positions, and what each position meets at a.
    """
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    key = tl.arange(0, K)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    first, last = place(bounds, length, n, PACKED)
    state = key[:, None] * V + value[None, :]
    mine = (n * H + h).to(tl.int64) * K * V + state
    s = tl.load(start + mine) if START else tl.zeros([K, BV], dtype=tl.float32)
    if STATES:
        states += (slot(first, EVERY, n) * H + h) * K * V
    for t in range(0, (last - first).to(tl.int32)):
        if STATES:  # this one the compiler decides
            if t % EVERY == 0:
                tl.store(states + state, s)
                states += H * K * V
        row = (first + t) * H + h
        bk = tl.load(k + row * K + key).to(tl.float32)
        ba = tl.load(a + row * K + key).to(tl.float32)
        bb = tl.load(b + row * K + key).to(tl.float32)
        bv = tl.load(v + row * V + value).to(tl.float32)
        keep, change, _ = decay(tl.load(w + row * K + key).to(tl.float32))
        x = tl.sum(ba[:, None] * s, 0)
        s = s * keep[:, None] + (s * change[:, None] + bb[:, None] * x[None, :] + bk[:, None] * bv[None, :])
        if STATES:
            tl.store(met + row * V + value, x)
        else:
            br = tl.load(r + row * K + key).to(tl.float32)
            tl.store(out + row * V + value, tl.sum(br[:, None] * s, 0).to(out.dtype.element_ty))
    if not STATES:
        tl.store(end + mine, s)


@triton.jit
def reverse_kernel(
    r,
    w,
    k,
    dout,
    a,
    b,
    dend,
    dv,
    dmet,
    dstart,
    bounds,
    length,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BV: tl.constexpr,
    PACKED: tl.constexpr,
    END: tl.constexpr,
):
    """The same backwards: G, which is met at b and k and put back at a. Gradients of v and of what a met."""
    n = tl.program_id(0) // H
    h = tl.program_id(0) % H
    key = tl.arange(0, K)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    first, last = place(bounds, length, n, PACKED)
    mine = (n * H + h).to(tl.int64) * K * V + key[:, None] * V + value[None, :]
    grad = tl.load(dend + mine) if END else tl.zeros([K, BV], dtype=tl.float32)
    size = (last - first).to(tl.int32)
    for step in range(0, size):
        row = (first + size - 1 - step) * H + h
        br = tl.load(r + row * K + key).to(tl.float32)
        bk = tl.load(k + row * K + key).to(tl.float32)
        ba = tl.load(a + row * K + key).to(tl.float32)
        bb = tl.load(b + row * K + key).to(tl.float32)
        bd = tl.load(dout + row * V + value).to(tl.float32)
        keep, change, _ = decay(tl.load(w + row * K + key).to(tl.float32))
        grad += br[:, None] * bd[None, :]
        x = tl.sum(bb[:, None] * grad, 0)
        tl.store(dmet + row * V + value, x)
        tl.store(dv + row * V + value, tl.sum(bk[:, None] * grad, 0).to(dv.dtype.element_ty))
        grad = grad * keep[:, None] + (grad * change[:, None] + ba[:, None] * x[None, :])
    tl.store(dstart + mine, grad)
