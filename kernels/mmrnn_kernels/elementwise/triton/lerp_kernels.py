"""Token shift into N mixtures: a program has BT positions of one sample and BD channels, one position an iteration."""

import triton
import triton.language as tl


@triton.jit
def block_offsets(length, BT: tl.constexpr, BD: tl.constexpr, D: tl.constexpr):
    """Sample, first position and channels of this program, mask of the channels, and number of all positions."""
    blocks = tl.cdiv(length, BT)
    i_b = (tl.program_id(0) // blocks).to(tl.int64)
    i_first = tl.program_id(0) % blocks * BT
    # [BD]
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    rows = (tl.num_programs(0) // blocks).to(tl.int64) * length
    return i_b, i_first, o_d, o_d < D, rows


@triton.jit
def load(x, o_x, m_x):
    """Load in fp32."""
    return tl.load(x + o_x, mask=m_x, other=0.0).to(tl.float32)


@triton.jit
def load_previous(x, previous, starts, i_b, i_t, length, o_d, m_d, D: tl.constexpr, SHIFT: tl.constexpr):
    """Token before position i_t, zero where a segment starts; and whether there is one."""
    i_row = i_b * length + i_t
    if SHIFT:
        has_previous = i_t < length
        if starts is not None:
            has_previous = tl.load(starts + i_row, mask=has_previous, other=1) == 0
        # [BD]
        b_previous = load(x + (i_row - 1) * D, o_d, m_d & has_previous & (i_t > 0))
        b_previous += load(previous + i_b * D, o_d, m_d & has_previous & (i_t == 0))
    else:
        has_previous = i_t < length
        b_previous = load(previous + i_row * D, o_d, m_d)
    return b_previous, has_previous


@triton.jit
def load_weight(weights, offsets, i_n: tl.constexpr, o_d, o_x, m_d, rows, D: tl.constexpr):
    """Weight of the previous token in mixture i_n, with its offset if there is one."""
    # [BD]
    b_w = load(weights + i_n * D, o_d, m_d)
    if offsets is not None:
        b_w += load(offsets + i_n * rows * D, o_x, m_d)
    return b_w


@triton.jit
def store_mixture(y, i_n: tl.constexpr, weights, offsets, b_x, b_delta, o_d, o_x, m_d, rows, D: tl.constexpr):
    """Store mixture i_n of one position."""
    b_w = load_weight(weights, offsets, i_n, o_d, o_x, m_d, rows, D)
    tl.store(y + o_x, (b_x + b_delta * b_w).to(y.dtype.element_ty), mask=m_d)


@triton.jit
def lerp_forward_kernel(
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
    BT: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """Equation (1). Grid: (samples x blocks of BT positions, blocks of BD channels).

    With SHIFT `previous` is one row a sample.
    """
    y = (y0, y1, y2, y3, y4, y5)
    i_b, i_first, o_d, m_d, rows = block_offsets(length, BT, BD, D)
    for i in range(0, tl.minimum(BT, length - i_first)):
        i_t = i_first + i
        o_x = (i_b * length + i_t) * D + o_d
        # [BD]
        b_x = load(x, o_x, m_d)
        b_delta = load_previous(x, previous, starts, i_b, i_t, length, o_d, m_d, D, SHIFT)[0] - b_x
        for i_n in tl.static_range(N):
            store_mixture(y[i_n], i_n, weights, offsets, b_x, b_delta, o_d, o_x, m_d, rows, D)


@triton.jit
def mixture_gradient(
    dy, i_n: tl.constexpr, weights, offsets, doffsets, b_delta, o_d, o_x, m_d, m_own, rows, D: tl.constexpr
):
    """Gradients that mixture i_n has for x + previous, for previous, and for its weight; stores that of its offset."""
    # [BD]
    b_dy = load(dy, o_x, m_d)
    b_w = load(weights + i_n * D, o_d, m_d)
    b_dw = tl.where(m_own, b_dy * b_delta, 0.0)
    if offsets is not None:
        b_w += load(offsets + i_n * rows * D, o_x, m_d)
        tl.store(doffsets + i_n * rows * D + o_x, b_dw.to(doffsets.dtype.element_ty), mask=m_own)
    return b_dy, b_dy * b_w, b_dw


@triton.jit
def lerp_backward_kernel(
    x,
    previous,
    weights,
    offsets,
    starts,
    dy0,
    dy1,
    dy2,
    dy3,
    dy4,
    dy5,
    dx,
    dprevious,
    doffsets,
    partial_sums,
    length,
    N: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    BT: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """Equations (2) to (4). Grid as forward; positions from the last to the first.

    Each position passes the gradient of its previous token on to that token; so with SHIFT a program starts one
    position late, with the first of the next block. `partial_sums` has the gradients of the weights of every program.
    """
    dy = (dy0, dy1, dy2, dy3, dy4, dy5)
    i_b, i_first, o_d, m_d, rows = block_offsets(length, BT, BD, D)
    # [BD]
    b_dnext = tl.zeros([BD], dtype=tl.float32)
    b_dweights = ()
    for _ in tl.static_range(N):
        b_dweights += (tl.zeros([BD], dtype=tl.float32),)
    for i in range(1 - SHIFT, BT + 1):
        i_t = i_first + BT - i
        o_x = (i_b * length + i_t) * D + o_d
        m_x = m_d & (i_t < length)
        m_own = m_x & (i_t < i_first + BT)
        b_x = load(x, o_x, m_x)
        b_previous, has_previous = load_previous(x, previous, starts, i_b, i_t, length, o_d, m_x, D, SHIFT)
        b_delta = b_previous - b_x
        b_total = tl.zeros([BD], dtype=tl.float32)
        b_dprevious = tl.zeros([BD], dtype=tl.float32)
        b_sums = ()
        for i_n in tl.static_range(N):
            b_dy, b_late, b_dw = mixture_gradient(
                dy[i_n], i_n, weights, offsets, doffsets, b_delta, o_d, o_x, m_x, m_own, rows, D
            )
            b_total += b_dy
            b_dprevious += b_late
            b_sums += (b_dweights[i_n] + b_dw,)
        b_dweights = b_sums
        tl.store(dx + o_x, (b_total - b_dprevious + b_dnext).to(dx.dtype.element_ty), mask=m_own)
        if SHIFT:
            b_dnext = tl.where(has_previous, b_dprevious, 0.0)
            p_last = dprevious + i_b * D + o_d
            tl.store(p_last, b_dnext.to(dprevious.dtype.element_ty), mask=m_own & (i_t == 0))
        else:
            tl.store(dprevious + o_x, b_dprevious.to(dprevious.dtype.element_ty), mask=m_own)

    p_sums = partial_sums + tl.program_id(0).to(tl.int64) * N * D + o_d
    for i_n in tl.static_range(N):
        tl.store(p_sums + i_n * D, b_dweights[i_n], mask=m_d)
