"""Activations and gates, element by element: a program has B of them."""

import triton
import triton.language as tl


@triton.jit
def block_offsets(size, B: tl.constexpr):
    """Offsets of this program's elements, and the mask of those below `size`."""
    o_x = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    return o_x, o_x < size


@triton.jit
def load(x, o_x, m_x):
    """Load in fp32."""
    return tl.load(x + o_x, mask=m_x, other=0.0).to(tl.float32)


@triton.jit
def store(x, o_x, b_x, m_x):
    """Store in the type of the tensor."""
    tl.store(x + o_x, b_x.to(x.dtype.element_ty), mask=m_x)


@triton.jit
def relu(b_x):
    """max(x, 0) that keeps NaN, which a maximum would hide."""
    return tl.where(b_x < 0.0, 0.0, b_x)


@triton.jit
def square_forward_kernel(x, out, size, B: tl.constexpr):
    """`relu(x)^2`."""
    o_x, m_x = block_offsets(size, B)
    # [B]
    b_y = relu(load(x, o_x, m_x))
    store(out, o_x, b_y * b_y, m_x)


@triton.jit
def square_backward_kernel(x, grad, dx, size, B: tl.constexpr):
    """Gradient of x."""
    o_x, m_x = block_offsets(size, B)
    # [B]
    b_y = relu(load(x, o_x, m_x))
    store(dx, o_x, 2.0 * b_y * load(grad, o_x, m_x), m_x)


@triton.jit
def gate_forward_kernel(gate, x, out, size, B: tl.constexpr):
    """`sigmoid(gate) * x`."""
    o_x, m_x = block_offsets(size, B)
    store(out, o_x, tl.sigmoid(load(gate, o_x, m_x)) * load(x, o_x, m_x), m_x)


@triton.jit
def gate_backward_kernel(gate, x, grad, dgate, dx, size, B: tl.constexpr):
    """Gradients of gate and x."""
    o_x, m_x = block_offsets(size, B)
    # [B]
    b_s = tl.sigmoid(load(gate, o_x, m_x))
    b_dy = load(grad, o_x, m_x)
    store(dx, o_x, b_dy * b_s, m_x)
    store(dgate, o_x, b_dy * load(x, o_x, m_x) * b_s * (1.0 - b_s), m_x)
