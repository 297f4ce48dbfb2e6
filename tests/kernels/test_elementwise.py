"""The elementwise operators: values and gradients of the native code against the formulas in fp64."""

import shutil
from functools import partial

import pytest
import torch

from mmrnn_kernels import elementwise, lerp, norm_gate, relu_square, sigmoid_gate
from mmrnn_kernels.common.native import build
from mmrnn_kernels.elementwise import reference

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, build.COMPILERS)), reason=f"no C++ compiler ({', '.join(build.COMPILERS)})"
)

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 1e-3}
HALF = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16", "fp16"])
SHAPES = [(1, 1, 1), (1, 1, 24), (2, 3, 16), (3, 67, 20), (2, 150, 33), (1, 300, 64)]
SHAPED = pytest.mark.parametrize("shape", SHAPES, ids=str)


def normal(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype)


def outputs(op, inputs, grads):
    """Values of all outputs, then the gradients of all inputs."""
    inputs = [x.detach().requires_grad_() if isinstance(x, torch.Tensor) else x for x in inputs]
    found = op(*inputs)
    found = [found] if isinstance(found, torch.Tensor) else list(found)
    wanted = [x for x in inputs if isinstance(x, torch.Tensor)]
    back = torch.autograd.grad(found, wanted, [grad.to(y.dtype) for grad, y in zip(grads, found, strict=True)])
    return found + list(back), wanted


def check(op, formula, inputs, dtype, count=1):
    """`op` answers what the formula says in fp64, each in the type of what it belongs to."""
    double = [x.double() if isinstance(x, torch.Tensor) else x for x in inputs]
    with torch.no_grad():
        answer = formula(*double)
        shape = (answer[0] if count > 1 or isinstance(answer, list) else answer).shape
    grads = [normal(*shape, dtype=dtype) for _ in range(count)]
    truth, _ = outputs(formula, double, grads)
    found, wanted = outputs(lambda *x: op(*x, backend="cpu"), inputs, grads)
    types = [dtype] * count + [x.dtype for x in wanted]
    for got, true, kind in zip(found, truth, types, strict=True):
        assert got.dtype == kind
        scale = true.abs().max().clamp(min=1)
        assert ((got.double() - true).abs().max() / scale) < max(TOLERANCE[kind], TOLERANCE[dtype] / 10)


@HALF
@SHAPED
@pytest.mark.parametrize("n", [1, 2, 5])
def test_lerp(shape, n, dtype):
    inputs = normal(*shape, dtype=dtype), normal(*shape, dtype=dtype), normal(n, shape[-1])
    check(lerp, reference.lerp, inputs, dtype, n)
    check(lerp, reference.lerp, (*inputs, normal(n, *shape, dtype=dtype)), dtype, n)


@HALF
@SHAPED
@pytest.mark.parametrize("packed", [False, True])
def test_token_shift(shape, packed, dtype):
    """The row before the first, and rows in which segments start; blocks of rows end inside of samples, too."""
    b, t, d = shape
    starts = torch.rand(b, t) < 0.3 if packed else None
    inputs = normal(*shape, dtype=dtype), normal(b, d, dtype=dtype), normal(5, d), normal(5, *shape, dtype=dtype)
    check(partial(lerp, starts=starts), partial(reference.lerp, starts=starts), inputs, dtype, 5)


@HALF
@SHAPED
def test_relu_square(shape, dtype):
    check(relu_square, reference.relu_square, [normal(*shape, dtype=dtype)], dtype)


@HALF
@SHAPED
def test_sigmoid_gate(shape, dtype):
    inputs = 3 * normal(*shape, dtype=dtype), normal(*shape, dtype=dtype)
    check(sigmoid_gate, reference.sigmoid_gate, inputs, dtype)


@HALF
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 2), (2, 3, 2, 16), (1, 150, 3, 20), (2, 70, 2, 64), (1, 9, 5, 33)], ids=str
)
def test_norm_gate(shape, dtype):
    b, t, h, v = shape
    parameters = normal(h * v), normal(h * v)
    inputs = normal(*shape, dtype=dtype), normal(b, t, h * v, dtype=dtype)
    check(norm_gate, reference.norm_gate, (*inputs, *parameters, 64e-5), dtype)


def test_norm_gate_of_two_types_and_far_from_zero():
    """The mean is taken away before squares are summed."""
    x = normal(1, 40, 2, 16) + 100
    inputs = x, normal(1, 40, 32, dtype=torch.bfloat16), normal(32), normal(32), 64e-5
    check(norm_gate, reference.norm_gate, inputs, torch.bfloat16)
    found = norm_gate(x, torch.full((1, 40, 32), 30.0), torch.ones(32), torch.zeros(32), 0.0, backend="cpu")
    assert found.view(1, 40, 2, 16).var(-1, correction=0).sqrt().sub(30).abs().max() < 1e-2


def test_strides_that_are_not_whole():
    """Slices, transposed tensors and the expanded gradient of a sum."""
    x, previous = normal(2, 5, 48)[..., ::2], normal(5, 2, 24).transpose(0, 1)
    offsets = normal(2, 5, 3, 24).permute(2, 0, 1, 3)
    found, inputs = [], [x, previous, normal(3, 24), offsets]
    for backend in ("cpu", "reference"):
        leaves = [y.detach().requires_grad_() for y in inputs]
        out = lerp(*leaves, backend=backend)
        found.append([*out, *torch.autograd.grad(sum(y.sum() for y in out), leaves)])
    torch.testing.assert_close(*found)


def test_a_mixture_nobody_uses():
    inputs = [normal(2, 3, 20), normal(2, 3, 20), normal(3, 20), normal(3, 2, 3, 20)]
    found = []
    for backend in ("cpu", "reference"):
        leaves = [y.detach().requires_grad_() for y in inputs]
        found.append(torch.autograd.grad(lerp(*leaves, backend=backend)[1].square().sum(), leaves))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extremes(dtype):
    x = torch.tensor([[[-torch.inf, -1e30, -100.0, -0.0, 0.0, 100.0, 1e30, torch.inf, torch.nan]]], dtype=dtype)
    one = torch.ones_like(x)
    assert torch.equal(sigmoid_gate(x, one, backend="cpu")[..., :-1], torch.sigmoid(x)[..., :-1])
    assert sigmoid_gate(x, one, backend="cpu")[..., -1].isnan()
    squares = relu_square(x, backend="cpu")
    torch.testing.assert_close(squares, torch.relu(x).square(), equal_nan=True)


def test_bf16_rounds_to_the_nearest_even():
    bits = torch.arange(2**16, dtype=torch.int64)
    exact = (bits << 16 | 0x8000).to(torch.int32).view(torch.float32)[None, None]  # halfway between two neighbours
    x, zero = torch.zeros_like(exact, dtype=torch.bfloat16), torch.zeros(1, exact.shape[-1])
    offsets = torch.ones(1, *x.shape)
    normal_numbers = exact.isfinite() & (exact.abs() > 1e-37)
    (found,) = lerp(x, torch.ones_like(x), torch.where(normal_numbers, exact, 0)[0], None, backend="cpu")
    assert torch.equal(found, torch.where(normal_numbers, exact, 0).bfloat16())
    (found,) = lerp(x, x + torch.nan, zero, offsets.bfloat16(), backend="cpu")
    assert found.isnan().all()


def test_the_number_of_threads_changes_nothing():
    inputs = [normal(4, 300, 40), normal(4, 40), normal(5, 40), normal(5, 4, 300, 40)]
    grads = [normal(4, 300, 40) for _ in range(5)]
    whole = normal(4, 300, 2, 20), normal(4, 300, 40), normal(40), normal(40), 1e-5
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            first, _ = outputs(lambda *x: lerp(*x, backend="cpu"), inputs, grads)
            second, _ = outputs(lambda *x: norm_gate(*x, backend="cpu"), whole, grads[:1])
        finally:
            torch.set_num_threads(1)
        found.append(first + second)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
@pytest.mark.parametrize("kinds", [(torch.float16, torch.bfloat16), (torch.float32, torch.bfloat16)], ids=str)
def test_norm_of_any_mixture_of_types(kinds, backend):
    inputs = normal(1, 3, 2, 4, dtype=kinds[0]), normal(1, 3, 8), normal(8), normal(8, dtype=kinds[1])
    found = norm_gate(*inputs, 1e-5, backend=backend)
    truth = reference.norm_gate(*(x.double() for x in inputs), 1e-5)
    torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
def test_norm_of_one_value(backend):
    one = torch.ones(1)
    assert norm_gate(one.view(1, 1, 1, 1), one.view(1, 1, 1), one, 3 * one, 1e-5, backend=backend).item() == (
        pytest.approx(3 * torch.sigmoid(one).item())
    )


def test_what_cannot_run_says_so():
    x = normal(1, 2, 4)
    with pytest.raises(RuntimeError, match="relu_square: backend 'cpu' cannot run here: it computes in fp32, got"):
        relu_square(x.double(), backend="cpu")
    assert relu_square(x.double()).dtype == torch.float64
    with pytest.raises(ValueError, match=r"norm_gate: c is 8 in x \[1, 2, 8\] but 6 in gate \[1, 2, 6\]"):
        norm_gate(normal(1, 2, 2, 4), normal(1, 2, 6), normal(6), normal(6), 1e-5)
    with pytest.raises(ValueError, match="backend must be one of"):
        sigmoid_gate(x, x, backend="quick")


def test_auto_takes_native_code_where_it_pays(monkeypatch):
    taken = []
    monkeypatch.setattr(elementwise, "SIGMOID_GATE", lambda backend, gate, x: taken.append(backend) or gate * x)
    for rows, backend in ((1, "auto"), (200, "auto"), (1, "cpu")):
        sigmoid_gate(normal(1, rows, 64), normal(1, rows, 64), backend=backend)
    assert taken == ["reference", "auto", "cpu"]


def test_without_a_compiler_the_formula(monkeypatch):
    build.load_or_reason.cache_clear()
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    try:
        x = normal(1, 200, 64)
        assert torch.equal(relu_square(x), reference.relu_square(x))
        assert "no C++ compiler" in elementwise.cpu.unavailable_reason(x)
    finally:
        build.load_or_reason.cache_clear()
