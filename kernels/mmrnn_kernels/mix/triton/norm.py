"""Group norm of the heads with the gate: a program reads some positions and some heads, one position a turn."""

import triton
import triton.language as tl


@triton.jit
def place(rows, B: tl.constexpr, H: tl.constexpr, V: tl.constexpr, BH: tl.constexpr, BV: tl.constexpr):
    """First position of this program and how many there are; its channels, and which of them there are."""
    first = tl.program_id(0).to(tl.int64) * B
    h = tl.program_id(1) * BH + tl.arange(0, BH)[:, None]
    v = tl.arange(0, BV)[None, :]
    return first, tl.minimum(B, rows - first).to(tl.int32), h * V + v, (h < H) & (v < V)


@triton.jit
def normed(x, at, inside, eps, V: tl.constexpr):
    """Without its mean and divided by its deviation, and 1 / deviation of every head."""
    y = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    y = tl.where(inside, y - tl.sum(y, 1)[:, None] * (1.0 / V), 0.0)
    scale = tl.rsqrt(tl.sum(y * y, 1)[:, None] * (1.0 / V) + eps)
    return y * scale, scale


@triton.jit
def norm_forward(
    x,
    gate,
    weight,
    bias,
    out,
    eps,
    rows,
    H: tl.constexpr,
    V: tl.constexpr,
    BH: tl.constexpr,
    BV: tl.constexpr,
    B: tl.constexpr,
):
    """Programs: B positions, then BH heads."""
    first, count, channel, inside = place(rows, B, H, V, BH, BV)
    gamma = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    beta = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    for step in range(0, count):
        at = (first + step) * (H * V) + channel
        n, _ = normed(x, at, inside, eps, V)
        g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
        y = (n * gamma + beta) * (g * tl.sigmoid(g))
        tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def norm_backward(
    x,
    gate,
    weight,
    bias,
    grad,
    dx,
    dgate,
    shares,
    eps,
    rows,
    H: tl.constexpr,
    V: tl.constexpr,
    BH: tl.constexpr,
    BV: tl.constexpr,
    B: tl.constexpr,
):
    """Programs as forward. `shares`: gradients of weight and bias, one a program."""
    first, count, channel, inside = place(rows, B, H, V, BH, BV)
    gamma = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    beta = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    dgamma = tl.zeros([BH, BV], dtype=tl.float32)
    dbeta = tl.zeros([BH, BV], dtype=tl.float32)
    for step in range(0, count):
        at = (first + step) * (H * V) + channel
        n, scale = normed(x, at, inside, eps, V)
        g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        s = tl.sigmoid(g)
        slope = s * (1.0 + g * (1.0 - s))
        tl.store(dgate + at, (dy * (n * gamma + beta) * slope).to(dgate.dtype.element_ty), mask=inside)
        da = dy * (g * s)
        dgamma += da * n
        dbeta += da
        da *= gamma
        mean = tl.sum(da, 1)[:, None] * (1.0 / V)
        slant = tl.sum(da * n, 1)[:, None] * (1.0 / V)
        tl.store(dx + at, (scale * (da - mean - n * slant)).to(dx.dtype.element_ty), mask=inside)
    share = shares + tl.program_id(0).to(tl.int64) * (2 * H * V) + channel
    tl.store(share, dgamma, mask=inside)
    tl.store(share + H * V, dbeta, mask=inside)
