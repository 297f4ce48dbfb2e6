"""Activations and gates, number by number: a program reads B of them."""

import triton
import triton.language as tl


@triton.jit
def some(size, B: tl.constexpr):
    """Numbers of this program, and which of them there are."""
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    return at, at < size


@triton.jit
def read(x, at, inside):
    return tl.load(x + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def write(x, at, value, inside):
    tl.store(x + at, value.to(x.dtype.element_ty), mask=inside)


@triton.jit
def relu(x):
    return tl.where(x < 0.0, 0.0, x)  # a maximum would hide what is not a number


@triton.jit
def square_forward(x, out, size, B: tl.constexpr):
    at, inside = some(size, B)
    y = relu(read(x, at, inside))
    write(out, at, y * y, inside)


@triton.jit
def square_backward(x, grad, dx, size, B: tl.constexpr):
    at, inside = some(size, B)
    y = relu(read(x, at, inside))
    write(dx, at, 2.0 * y * read(grad, at, inside), inside)


@triton.jit
def gate_forward(gate, x, out, size, B: tl.constexpr):
    at, inside = some(size, B)
    write(out, at, tl.sigmoid(read(gate, at, inside)) * read(x, at, inside), inside)


@triton.jit
def gate_backward(gate, x, grad, dgate, dx, size, B: tl.constexpr):
    at, inside = some(size, B)
    s = tl.sigmoid(read(gate, at, inside))
    dy = read(grad, at, inside)
    write(dx, at, dy * s, inside)
    write(dgate, at, dy * read(x, at, inside) * s * (1.0 - s), inside)
