"""Group norm of the heads with the gate: a program has BT positions and BH heads, one position an iteration."""

import triton
import triton.language as tl


@triton.jit
def block_offsets(rows, H: tl.constexpr, V: tl.constexpr, BH: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr):
    """First position of this program, their number, the channels of a position and their mask."""
    i_first = tl.program_id(0).to(tl.int64) * BT
    o_h = tl.program_id(1) * BH + tl.arange(0, BH)[:, None]
    o_v = tl.arange(0, BV)[None, :]
    # [BH, BV]
    o_c = o_h * V + o_v
    return i_first, tl.minimum(BT, rows - i_first).to(tl.int32), o_c, (o_h < H) & (o_v < V)


@triton.jit
def load(x, o_x, m_x):
    """Load in fp32."""
    return tl.load(x + o_x, mask=m_x, other=0.0).to(tl.float32)


@triton.jit
def load_normed(x, o_x, m_c, eps, V: tl.constexpr):
    """One position, without its mean and divided by its deviation, and 1 / deviation of every head."""
    # [BH, BV]
    b_x = load(x, o_x, m_c)
    b_x = tl.where(m_c, b_x - tl.sum(b_x, 1)[:, None] * (1.0 / V), 0.0)
    # [BH, 1]
    b_scale = tl.rsqrt(tl.sum(b_x * b_x, 1)[:, None] * (1.0 / V) + eps)
    return b_x * b_scale, b_scale


@triton.jit
def norm_forward_kernel(
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
    BT: tl.constexpr,
):
    """Equation (6). Grid: (blocks of BT positions, blocks of BH heads)."""
    i_first, T, o_c, m_c = block_offsets(rows, H, V, BH, BV, BT)
    # [BH, BV]
    b_gamma = load(weight, o_c, m_c)
    b_beta = load(bias, o_c, m_c)
    for i_t in range(0, T):
        o_x = (i_first + i_t) * (H * V) + o_c
        b_n, _ = load_normed(x, o_x, m_c, eps, V)
        b_g = load(gate, o_x, m_c)
        b_y = (b_n * b_gamma + b_beta) * (b_g * tl.sigmoid(b_g))
        tl.store(out + o_x, b_y.to(out.dtype.element_ty), mask=m_c)


@triton.jit
def norm_backward_kernel(
    x,
    gate,
    weight,
    bias,
    grad,
    dx,
    dgate,
    partial_sums,
    eps,
    rows,
    H: tl.constexpr,
    V: tl.constexpr,
    BH: tl.constexpr,
    BV: tl.constexpr,
    BT: tl.constexpr,
):
    """Equations (7) to (9). Grid as forward; `partial_sums` has the gradients of weight and bias of every program."""
    i_first, T, o_c, m_c = block_offsets(rows, H, V, BH, BV, BT)
    # [BH, BV]
    b_gamma = load(weight, o_c, m_c)
    b_beta = load(bias, o_c, m_c)
    b_dgamma = tl.zeros([BH, BV], dtype=tl.float32)
    b_dbeta = tl.zeros([BH, BV], dtype=tl.float32)
    for i_t in range(0, T):
        o_x = (i_first + i_t) * (H * V) + o_c
        b_n, b_scale = load_normed(x, o_x, m_c, eps, V)
        b_g = load(gate, o_x, m_c)
        b_dy = load(grad, o_x, m_c)
        b_sigmoid = tl.sigmoid(b_g)
        b_dsilu = b_sigmoid * (1.0 + b_g * (1.0 - b_sigmoid))
        tl.store(dgate + o_x, (b_dy * (b_n * b_gamma + b_beta) * b_dsilu).to(dgate.dtype.element_ty), mask=m_c)
        b_da = b_dy * (b_g * b_sigmoid)
        b_dgamma += b_da * b_n
        b_dbeta += b_da
        b_da *= b_gamma
        # [BH, 1]
        b_mean = tl.sum(b_da, 1)[:, None] * (1.0 / V)
        b_mean_n = tl.sum(b_da * b_n, 1)[:, None] * (1.0 / V)
        tl.store(dx + o_x, (b_scale * (b_da - b_mean - b_n * b_mean_n)).to(dx.dtype.element_ty), mask=m_c)
    p_sums = partial_sums + tl.program_id(0).to(tl.int64) * (2 * H * V) + o_c
    tl.store(p_sums, b_dgamma, mask=m_c)
    tl.store(p_sums + H * V, b_dbeta, mask=m_c)
