"""Token shift into n mixtures: a program reads some positions of one sample and some channels, one position a turn."""

import triton
import triton.language as tl


@triton.jit
def place(length, B: tl.constexpr, BD: tl.constexpr, D: tl.constexpr):
    """Sample, first position and channels of this program, and how many positions there are in all samples."""
    blocks = tl.cdiv(length, B)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    first = tl.program_id(0) % blocks * B
    channel = tl.program_id(1) * BD + tl.arange(0, BD)
    rows = (tl.num_programs(0) // blocks).to(tl.int64) * length
    return sample, first, channel, channel < D, rows


@triton.jit
def before(x, previous, starts, sample, t, length, channel, live, D: tl.constexpr, SHIFT: tl.constexpr):
    """What came before position t, in fp32, and whether anything did: nothing where a segment starts."""
    row = sample * length + t
    if SHIFT:
        goes_on = t < length
        if starts is not None:
            goes_on = tl.load(starts + row, mask=goes_on, other=1) == 0
        inner = live & goes_on & (t > 0)
        found = tl.load(x + (row - 1) * D + channel, mask=inner, other=0.0).to(tl.float32)
        outer = live & goes_on & (t == 0)
        found += tl.load(previous + sample * D + channel, mask=outer, other=0.0).to(tl.float32)
    else:
        goes_on = t < length
        found = tl.load(previous + row * D + channel, mask=live, other=0.0).to(tl.float32)
    return found, goes_on


@triton.jit
def mixture(y, i: tl.constexpr, weights, offsets, x, delta, channel, at, live, rows, D: tl.constexpr):
    w = tl.load(weights + i * D + channel, mask=live, other=0.0).to(tl.float32)
    if offsets is not None:
        w += tl.load(offsets + i * rows * D + at, mask=live, other=0.0).to(tl.float32)
    tl.store(y + at, (x + delta * w).to(y.dtype.element_ty), mask=live)


@triton.jit
def lerp_forward(
    x,
    previous,
    weights,
    offsets,
    starts,
    y0,
    y1,
    y2,
    y3,
    y4,
    y5,
    length,
    N: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    B: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """Programs: B positions of a sample, then BD channels. With SHIFT `previous` is one row a sample."""
    sample, first, channel, live, rows = place(length, B, BD, D)
    for step in range(0, tl.minimum(B, length - first)):
        t = first + step
        at = (sample * length + t) * D + channel
        now = tl.load(x + at, mask=live, other=0.0).to(tl.float32)
        delta = before(x, previous, starts, sample, t, length, channel, live, D, SHIFT)[0] - now
        mixture(y0, 0, weights, offsets, now, delta, channel, at, live, rows, D)
        if N > 1:
            mixture(y1, 1, weights, offsets, now, delta, channel, at, live, rows, D)
        if N > 2:
            mixture(y2, 2, weights, offsets, now, delta, channel, at, live, rows, D)
        if N > 3:
            mixture(y3, 3, weights, offsets, now, delta, channel, at, live, rows, D)
        if N > 4:
            mixture(y4, 4, weights, offsets, now, delta, channel, at, live, rows, D)
        if N > 5:
            mixture(y5, 5, weights, offsets, now, delta, channel, at, live, rows, D)


@triton.jit
def gradients(
    g,
    i: tl.constexpr,
    weights,
    offsets,
    doffsets,
    delta,
    total,
    late,
    share,
    channel,
    at,
    live,
    mine,
    rows,
    D: tl.constexpr,
):
    """Adds what mixture i says: to the sum of all gradients, to that of the position before, to that of the weights."""
    dy = tl.load(g + at, mask=live, other=0.0).to(tl.float32)
    w = tl.load(weights + i * D + channel, mask=live, other=0.0).to(tl.float32)
    own = tl.where(mine, dy * delta, 0.0)
    if offsets is not None:
        w += tl.load(offsets + i * rows * D + at, mask=live, other=0.0).to(tl.float32)
        tl.store(doffsets + i * rows * D + at, own.to(doffsets.dtype.element_ty), mask=mine)
    return total + dy, late + dy * w, share + own


@triton.jit
def lerp_backward(
    x,
    previous,
    weights,
    offsets,
    starts,
    g0,
    g1,
    g2,
    g3,
    g4,
    g5,
    dx,
    dprevious,
    doffsets,
    shares,
    length,
    N: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    B: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """Programs as forward, from the last position to the first: each hands down to the one before what belongs to it.
    With SHIFT they begin one position late, to learn what that one hands down. `shares` are of the weights' gradients.
    """
    sample, first, channel, inside, rows = place(length, B, BD, D)
    after = tl.zeros([BD], dtype=tl.float32)
    s0 = tl.zeros([BD], dtype=tl.float32)
    s1 = tl.zeros([BD], dtype=tl.float32)
    s2 = tl.zeros([BD], dtype=tl.float32)
    s3 = tl.zeros([BD], dtype=tl.float32)
    s4 = tl.zeros([BD], dtype=tl.float32)
    s5 = tl.zeros([BD], dtype=tl.float32)
    for step in range(1 - SHIFT, B + 1):
        t = first + B - step
        at = (sample * length + t) * D + channel
        live = inside & (t < length)
        mine = live & (t < first + B)
        now = tl.load(x + at, mask=live, other=0.0).to(tl.float32)
        found, goes_on = before(x, previous, starts, sample, t, length, channel, live, D, SHIFT)
        d = found - now
        total = tl.zeros([BD], dtype=tl.float32)
        late = tl.zeros([BD], dtype=tl.float32)
        total, late, s0 = gradients(
            g0, 0, weights, offsets, doffsets, d, total, late, s0, channel, at, live, mine, rows, D
        )
        if N > 1:
            total, late, s1 = gradients(
                g1, 1, weights, offsets, doffsets, d, total, late, s1, channel, at, live, mine, rows, D
            )
        if N > 2:
            total, late, s2 = gradients(
                g2, 2, weights, offsets, doffsets, d, total, late, s2, channel, at, live, mine, rows, D
            )
        if N > 3:
            total, late, s3 = gradients(
                g3, 3, weights, offsets, doffsets, d, total, late, s3, channel, at, live, mine, rows, D
            )
        if N > 4:
            total, late, s4 = gradients(
                g4, 4, weights, offsets, doffsets, d, total, late, s4, channel, at, live, mine, rows, D
            )
        if N > 5:
            total, late, s5 = gradients(
                g5, 5, weights, offsets, doffsets, d, total, late, s5, channel, at, live, mine, rows, D
            )
        tl.store(dx + at, (total - late + after).to(dx.dtype.element_ty), mask=mine)
        if SHIFT:
            after = tl.where(goes_on, late, 0.0)
            place_of_last = dprevious + sample * D + channel
            tl.store(place_of_last, after.to(dprevious.dtype.element_ty), mask=mine & (t == 0))
        else:
            tl.store(dprevious + at, late.to(dprevious.dtype.element_ty), mask=mine)

    share = shares + tl.program_id(0).to(tl.int64) * N * D + channel
    tl.store(share, s0, mask=inside)
    if N > 1:
        tl.store(share + D, s1, mask=inside)
    if N > 2:
        tl.store(share + 2 * D, s2, mask=inside)
    if N > 3:
        tl.store(share + 3 * D, s3, mask=inside)
    if N > 4:
        tl.store(share + 4 * D, s4, mask=inside)
    if N > 5:
        tl.store(share + 5 * D, s5, mask=inside)
