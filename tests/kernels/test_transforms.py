"""Derivatives of every order and kind through every operator: the right numbers, or one sentence."""

from functools import partial

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

from mmrnn_kernels import (
    elementwise,
    gated_delta_rule,
    kda,
    lerp,
    norm_gate,
    relu_square,
    selective_scan,
    sigmoid_gate,
    wkv5,
    wkv6,
    wkv7,
)
from mmrnn_kernels.linear import PackedWeight, linear

B, T, H, K = 1, 4, 2, 4
C = H * K
TIMED, PER_HEAD, STATE, WIDE = (B, T, H, K), (H, K), (B, H, K, K), (B, T, C)
OPS = {
    "wkv5": (wkv5, [TIMED, TIMED, TIMED, PER_HEAD, PER_HEAD, STATE]),
    "wkv6": (wkv6, [TIMED, TIMED, TIMED, TIMED, PER_HEAD, STATE]),
    "wkv7": (wkv7, [TIMED] * 6 + [STATE]),
    "gated_delta_rule": (gated_delta_rule, [TIMED, TIMED, TIMED, (B, T, H), (B, T, H), STATE]),
    "kda": (kda, [TIMED, TIMED, TIMED, TIMED, (B, T, H), STATE]),
    "selective_scan": (selective_scan, [WIDE, WIDE, (C, 3), (B, T, 3), (B, T, 3), (B, C, 3)]),
    "lerp": (lerp, [WIDE, (B, C), (2, C), (2, *WIDE)]),
    "relu_square": (relu_square, [WIDE]),
    "sigmoid_gate": (sigmoid_gate, [WIDE, WIDE]),
    "norm_gate": (partial(norm_gate, eps=1e-5), [TIMED, WIDE, (C,), (C,)]),
}
RECURRENCES = ("wkv5", "wkv6", "wkv7", "gated_delta_rule", "kda", "selective_scan")
BACKENDS = [(op, backend) for op in OPS for backend in ("cpu", "chunked") if op in RECURRENCES or backend == "cpu"]


@pytest.fixture(autouse=True)
def native_at_every_size(monkeypatch):
    monkeypatch.setattr(elementwise, "MIN_NATIVE_ELEMENTS", 0)


def make(name, backend="auto"):
    """An operator as one function of all its inputs whose result is one tensor, and its inputs."""
    op, shapes = OPS[name]

    def function(*inputs):
        found = op(*inputs, backend=backend)
        return torch.cat([x.flatten() for x in ([found] if isinstance(found, torch.Tensor) else found)])

    generator = torch.Generator().manual_seed(0)
    return function, tuple(torch.randn(shape, generator=generator) for shape in shapes)


def doubled(inputs):
    return tuple(x.double() for x in inputs)


def directional(function, inputs, tangents, step=1e-6):
    """The derivative by central differences in fp64."""
    ahead, behind = (
        function(*(x + sign * step * d for x, d in zip(doubled(inputs), doubled(tangents), strict=True)))
        for sign in (1, -1)
    )
    return (ahead - behind) / (2 * step)


def close(found, truth, tolerance=1e-5):
    assert (found - truth).abs().max() <= tolerance * truth.abs().max()


@pytest.mark.parametrize("name", OPS)
def test_forward_mode(name):
    function, inputs = make(name)
    tangents = tuple(torch.randn_like(x) for x in inputs)
    truth = directional(make(name, "reference")[0], inputs, tangents)
    close(jvp(function, inputs, tangents)[1], truth)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, d) for x, d in zip(inputs, tangents, strict=True)]
        close(forward_ad.unpack_dual(function(*duals)).tangent, truth)
        duals = [x.requires_grad_() for x in duals]
        close(forward_ad.unpack_dual(function(*duals)).tangent.detach(), truth)


@pytest.mark.parametrize("name", OPS)
def test_jacobians_and_second_derivatives(name):
    function, inputs = make(name)
    reference = make(name, "reference")[0]
    one = inputs[0]
    truth = torch.autograd.functional.jacobian(lambda x: reference(x, *inputs[1:]), one)
    for jacobian in (jacfwd, jacrev):
        close(jacobian(lambda x: function(x, *inputs[1:]))(one), truth)

    def scalar(function):
        return lambda x: function(x, *inputs[1:]).square().sum()

    truth = torch.autograd.functional.hessian(scalar(reference), one)
    close(hessian(scalar(function))(one), truth)


@pytest.mark.parametrize("name", OPS)
def test_vmap(name):
    function, inputs = make(name)
    batch = torch.stack([inputs[0], inputs[0].flip(1), 2 * inputs[0]])
    found = vmap(function, (0, *(None for _ in inputs[1:])))(batch, *inputs[1:])
    close(found, torch.stack([function(x, *inputs[1:]) for x in batch]))


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_a_named_backend_refuses_and_names_the_one_to_take(name, backend):
    function, inputs = make(name, backend)
    if backend == "cpu":
        try:
            function(*inputs)
        except RuntimeError as error:
            pytest.skip(str(error))
    sentence = f"^{name}: backend '{backend}' cannot run here: .*; take backend=\"reference\"$"
    with pytest.raises(RuntimeError, match=sentence):
        jvp(function, inputs, inputs)
    with pytest.raises(RuntimeError, match=sentence):
        vmap(function)(*(x[None] for x in inputs))
    with pytest.raises(RuntimeError, match=sentence):
        hessian(lambda x: function(x, *inputs[1:]).sum())(inputs[0])
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=sentence):
        function(*(forward_ad.make_dual(x, x) for x in inputs))

    leaf = inputs[0].clone().requires_grad_()
    (grad,) = torch.autograd.grad(function(leaf, *inputs[1:]).square().sum(), leaf, create_graph=True)
    shared = {"wkv5": "wkv6", "gated_delta_rule": "delta", "kda": "delta"}  # the same code
    op = shared.get(name, name)
    with pytest.raises(RuntimeError, match=f'^{op}_{backend} is differentiable once; .*backend="reference"$'):
        torch.autograd.grad(grad.square().sum(), leaf)


@pytest.mark.parametrize("rows", [1, 200])
def test_linear_without_gradients(rows):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, 16, generator=generator) for size in (rows, 32))
    for kept in (None, PackedWeight()):
        with torch.no_grad():
            tangent = jvp(lambda x, w, kept=kept: linear(x, w, None, kept), (x, weight), (x, weight))[1]
            close(tangent, 2 * x @ weight.T)
            with forward_ad.dual_level():
                found = linear(forward_ad.make_dual(x, x), weight, None, kept)
                close(forward_ad.unpack_dual(found).tangent, x @ weight.T)
            close(vmap(lambda x, kept=kept: linear(x[None], weight, None, kept))(x)[:, 0], x @ weight.T)


@pytest.mark.slow
def test_compiled():
    function, inputs = make("wkv6")
    truth = directional(make("wkv6", "reference")[0], inputs, inputs)

    def tangent(function):
        return jvp(function, inputs, inputs)[1]

    close(torch.compile(lambda: tangent(function), backend="aot_eager")(), truth)
    close(tangent(torch.compile(function, backend="aot_eager")), truth)
    batch = [torch.stack([x, 2 * x]) for x in inputs]
    close(
        torch.compile(vmap(function), backend="aot_eager")(*batch),
        torch.stack([function(*x) for x in zip(*batch, strict=True)]),
    )
