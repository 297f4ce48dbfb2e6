"""The Triton kernels of the elementwise operators in the interpreter, beside the formulas in fp64."""

from inspect import unwrap

import pytest
import torch

from mmrnn_kernels import elementwise, lerp, norm_gate, relu_square, sigmoid_gate
from mmrnn_kernels.elementwise import reference

# Of bf16 the interpreter cuts off what a GPU would round.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-11}
HALF = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16", "fp16"])
SHAPES = [(1, 1, 1), (2, 6, 20), (1, 2, 1030)]
SHAPED = pytest.mark.parametrize("shape", SHAPES, ids=str)


def normal(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype)


def double(inputs):
    return [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs]


def check(interpreter, name, inputs, dtype, unused=(), **options):
    """Values and gradients are what the formula says in fp64, each in the type of what it belongs to."""
    leaves = [
        x.requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in double(inputs)
    ]
    truth = getattr(reference, name)(*leaves)
    truth = [truth] if isinstance(truth, torch.Tensor) else truth
    grads = [None if i in unused else normal(*y.shape, dtype=dtype) for i, y in enumerate(truth)]
    used = [(y, g) for y, g in zip(truth, grads, strict=True) if g is not None]
    wanted = [x for x in leaves if isinstance(x, torch.Tensor) and x.requires_grad]
    truth = [*truth, *torch.autograd.grad([y for y, _ in used], wanted, [g.double() for _, g in used])]
    found = interpreter("elementwise", name, inputs, grads, **options)
    floats = [x.dtype for x in inputs if isinstance(x, torch.Tensor) and x.is_floating_point()]
    for got, true, kind in zip(found, truth, [dtype] * len(grads) + floats, strict=True):
        assert got.dtype == kind
        assert got.shape == true.shape
        assert (got.double() - true).abs().max() <= TOLERANCE[kind] * true.abs().max().clamp(min=1)


def mixtures(shape, n, moved, dtype, kind):
    """Inputs of `lerp`: the row before each, the one before the first, or that in rows where segments start."""
    b, t, d = shape
    previous = normal(*shape, dtype=dtype) if kind == "each" else normal(b, d, dtype=dtype)
    offsets = normal(n, *shape, dtype=dtype) if moved else None
    starts = torch.rand(b, t) < 0.3 if kind == "packed" else None
    return normal(*shape, dtype=dtype), previous, normal(n, d), offsets, starts


FORMS = [(1, False), (4, False), (5, True), (6, False)]


@pytest.mark.parametrize(("n", "moved"), FORMS)
def test_lerp(interpreter, n, moved):
    check(interpreter, "lerp", mixtures((2, 3, 20), n, moved, torch.float32, "each"), torch.float32)


@HALF
@pytest.mark.parametrize("kind", ["last", "packed"])
def test_token_shift(interpreter, kind, dtype):
    check(interpreter, "lerp", mixtures((2, 6, 20), 5, True, dtype, kind), dtype)


@SHAPED
def test_lerp_of_odd_sizes(interpreter, shape):
    check(interpreter, "lerp", mixtures(shape, 2, False, torch.float32, "last"), torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["each", "last", "packed"])
@pytest.mark.parametrize(("n", "moved"), FORMS)
def test_lerp_over_whole_programs(interpreter, n, moved, kind):
    """As many positions a program as on a GPU, and one more."""
    inputs = mixtures((2, 33, 20), n, moved, torch.float32, kind)
    check(interpreter, "lerp", inputs, torch.float32, positions=32)


def test_token_shift_of_two_types(interpreter):
    """A state in fp32 before rows in bf16, and parameters in bf16."""
    inputs = normal(2, 5, 20, dtype=torch.bfloat16), normal(2, 20), normal(2, 20, dtype=torch.bfloat16), None, None
    check(interpreter, "lerp", inputs, torch.bfloat16)


def test_what_came_before_a_segment_is_not_even_read(interpreter):
    x, last, starts = normal(1, 6, 20), torch.full((1, 20), torch.nan), torch.tensor([[1, 0, 0, 1, 0, 0]]).bool()
    x[:, 2] = torch.nan
    found = interpreter("elementwise", "lerp", (x, last, normal(2, 20), None, starts), [normal(1, 6, 20)] * 2)
    assert found[0].isnan().any(-1).tolist() == [[False, False, True, False, False, False]]


@pytest.mark.parametrize("kind", ["each", "last"])
def test_a_mixture_nobody_uses(interpreter, kind):
    previous = normal(2, 3, 20) if kind == "each" else normal(2, 20)
    inputs = normal(2, 3, 20), previous, normal(3, 20), normal(3, 2, 3, 20), None
    check(interpreter, "lerp", inputs, torch.float32, unused=(0, 2))


@HALF
@SHAPED
@pytest.mark.parametrize("name", ["relu_square", "sigmoid_gate"])
def test_pointwise(interpreter, name, shape, dtype):
    inputs = [normal(*shape, dtype=dtype) for _ in range(1 if name == "relu_square" else 2)]
    check(interpreter, name, inputs, dtype)


@HALF
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 5, 3, 20), (1, 3, 9, 64), (1, 3, 2, 600)], ids=str)
def test_norm_gate(interpreter, shape, dtype):
    b, t, h, v = shape
    inputs = normal(*shape, dtype=dtype), normal(b, t, h * v, dtype=dtype), normal(h * v), normal(h * v), 64e-5
    check(interpreter, "norm_gate", inputs, dtype)


def test_norm_gate_far_from_zero(interpreter):
    """The mean is taken away before squares are summed."""
    x, ones = normal(1, 9, 2, 16) + 100, torch.ones(32)
    inputs = x, torch.full((1, 9, 32), 30.0), ones, 0 * ones, 0.0
    found = interpreter("elementwise", "norm_gate", inputs, [normal(1, 9, 32)])[0]
    assert found.view(1, 9, 2, 16).var(-1, correction=0).sqrt().sub(30).abs().max() < 1e-2


def test_extremes(interpreter):
    x = torch.tensor([[[-torch.inf, -1e30, -100.0, -0.0, 0.0, 100.0, 1e30, torch.inf, torch.nan]]])
    one = torch.ones_like(x)
    gate, _, dx = interpreter("elementwise", "sigmoid_gate", (x, one), [one])
    torch.testing.assert_close(gate, torch.sigmoid(x), equal_nan=True)
    torch.testing.assert_close(dx, torch.sigmoid(x), equal_nan=True)
    square, _ = interpreter("elementwise", "relu_square", (x,), [one])
    torch.testing.assert_close(square, torch.relu(x).square(), equal_nan=True)


def test_inputs_may_lie_anyhow(interpreter):
    """Slices, transposed tensors and the expanded gradient of a sum."""
    x, last = normal(2, 5, 48)[..., ::2], normal(24, 2).T
    offsets, one = normal(2, 5, 3, 24).permute(2, 0, 1, 3), torch.ones(1).expand(2, 5, 24)
    inputs = [x, last, normal(24, 3).T, offsets, (torch.rand(5, 2) < 0.3).T]
    plain = [y.contiguous() for y in inputs]
    assert not any(y.is_contiguous() for y in inputs)
    found, truth = (interpreter("elementwise", "lerp", y, [one] * 3) for y in (inputs, plain))
    assert all(map(torch.equal, found, truth))


@pytest.mark.slow
def test_opcheck_and_fullgraph(interpreter):
    """Schema, fake tensors and autograd of every operator; and traced as a whole, forward and backward."""
    compiled, plain = interpreter("elementwise checked")
    torch.testing.assert_close(compiled, plain)


def test_auto_takes_it_first(interpreter):
    x, grad = normal(1, 2, 4200), normal(1, 2, 4200)
    assert interpreter("taken", "relu_square", (x,), [grad]) == ["relu_square_triton", "relu_square_triton_backward"]
    assert interpreter("taken", "relu_square", (x[..., :20],), [grad[..., :20]]) == []  # too few for a call on a CPU
    assert elementwise.resolve_backend("auto", torch.empty(1, 1, 1, device="meta")) == "auto"


def test_what_it_cannot_take(interpreter):
    x = normal(1, 2, 4)
    message = r"^{}: backend 'triton' cannot run here: {}$"
    with pytest.raises(RuntimeError, match=message.format("lerp", "it makes at most 6 mixtures at once, got 7")):
        lerp(x, x, normal(7, 4), backend="triton")
    with pytest.raises(RuntimeError, match=message.format("norm_gate", "it takes heads of at most 1024, got 1025")):
        norm_gate(normal(1, 1, 1, 1025), normal(1, 1, 1025), normal(1025), normal(1025), 1e-5, backend="triton")
    needs = "it needs CUDA tensors, got one on cpu"
    with pytest.raises(RuntimeError, match=message.format("relu_square", needs)):
        relu_square(x, backend="triton")
    with pytest.raises(RuntimeError, match=message.format("sigmoid_gate", needs)):
        sigmoid_gate(x, x, backend="triton")
    with pytest.raises(RuntimeError, match=r"it computes in fp32, got torch\.float64"):
        interpreter("elementwise", "relu_square", (x.double(),), [x.double()])
    with pytest.raises(ValueError, match=r"starts needs previous to be \[b d\], got \[1, 2, 4\]"):
        lerp(x, x, normal(2, 4), starts=torch.zeros(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"t is 2 in x \[1, 2, 4\] but 3 in starts \[1, 3\]"):
        unwrap(lerp)(x, x[:, 0], normal(2, 4), starts=torch.zeros(1, 3, dtype=torch.bool))
