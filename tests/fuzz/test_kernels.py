"""Inputs of every operator drawn at random: each backend equals the reference in fp64, or one sentence says why not."""

import inspect
import math
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrnn_kernels import (
    elementwise,
    lerp,
    norm_gate,
    relu_square,
    selective_scan,
    sigmoid_gate,
    token_shift,
    wkv5,
    wkv6,
    wkv7,
)

pytestmark = pytest.mark.slow

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-5, torch.float64: 1e-10}
WRONG_DTYPES = (torch.bool, torch.int8, torch.int64, torch.complex64, torch.float8_e5m2)
WKV = {
    wkv5: {"r": "bthk", "k": "bthk", "v": "bthv", "w": "hk", "u": "hk"},
    wkv6: {"r": "bthk", "k": "bthk", "v": "bthv", "w": "bthk", "u": "hk"},
    wkv7: {"r": "bthk", "w": "bthk", "k": "bthk", "v": "bthv", "a": "bthk", "b": "bthk"},
    selective_scan: {"x": "btd", "dt": "btd", "a": "dk", "b": "btk", "c": "btk"},
}
OTHERS = {
    lerp: {"x": "btd", "previous": "bd", "weights": "nd", "offsets": "nbtd"},
    relu_square: {"x": "btd"},
    sigmoid_gate: {"gate": "btd", "x": "btd"},
    norm_gate: {"x": "bthv", "gate": "btc", "weight": "c", "bias": "c"},
    token_shift: {"x": "btd", "last": "bd"},
}
SIZES = st.fixed_dictionaries(
    {
        "b": st.integers(1, 3),
        "t": st.sampled_from([1, 2, 3, 15, 16, 17, 33, 65, 70]),
        "h": st.integers(1, 3),
        "k": st.sampled_from([1, 3, 8, 16, 20, 33]),
        "v": st.sampled_from([1, 4, 7, 16, 32]),
        "n": st.integers(1, 6),
        "d": st.sampled_from([1, 5, 16, 33, 64]),
    }
)
RANGES = st.sampled_from([(-7, -1), (-40, 40), (8, 12), (-1000, -90), (90, 1000)])
FUZZ = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def shape_of(letters, sizes):
    sizes = {**sizes, "c": sizes["h"] * sizes["v"]}
    return tuple(sizes[letter] for letter in letters)


def strided(x, draw):
    """The same numbers in other places: contiguous, with the first two axes swapped, or every second of a row."""
    kind = draw(st.sampled_from(["contiguous", "swapped", "wide"]))
    if kind == "swapped" and x.dim() > 2:
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    return torch.stack([x, x], -1)[..., 0] if kind == "wide" else x


@st.composite
def wkv_calls(draw):
    """An operator, its inputs by name, and the edges of segments, or None."""
    op, sizes = draw(st.sampled_from([*WKV])), draw(SIZES)
    packed = draw(st.booleans())
    sizes["b"] = 1 if packed else sizes["b"]
    inner = draw(st.lists(st.integers(0, sizes["t"]), max_size=5)) if packed else []
    edges = torch.tensor([0, *sorted(inner), sizes["t"]], dtype=draw(st.sampled_from([torch.int32, torch.int64])))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    inputs = {name: torch.randn(shape_of(axes, sizes), generator=generator) for name, axes in WKV[op].items()}
    if op is selective_scan:
        inputs["dt"], inputs["a"] = inputs["dt"].exp() * draw(st.sampled_from([1e-3, 1, 10])), -inputs["a"].exp()
    else:
        low, high = draw(RANGES)
        inputs["w"] = low + (high - low) * torch.rand(inputs["w"].shape, generator=generator)
        extreme = draw(st.sampled_from([None, math.inf, -math.inf]))
        if extreme is not None:
            inputs["w"][torch.rand(inputs["w"].shape, generator=generator) < 0.2] = extreme
    if op is wkv7:
        kappa = torch.nn.functional.normalize(inputs["a"], dim=-1)
        inputs["a"], inputs["b"] = -kappa, kappa * torch.sigmoid(inputs["b"])
    if draw(st.booleans()):
        count = len(edges) - 1 if packed else sizes["b"]
        axes = "dk" if op is selective_scan else "hkv"
        inputs["state"] = torch.randn((count, *shape_of(axes, sizes)), generator=generator)
    dtype, other = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES))
    mixed = draw(st.sets(st.sampled_from([*inputs]), max_size=2))
    inputs = {name: strided(x.to(other if name in mixed else dtype), draw) for name, x in inputs.items()}
    return op, inputs, edges if packed else None


@st.composite
def other_calls(draw):
    """An elementwise operator and its inputs by name."""
    op, sizes = draw(st.sampled_from([*OTHERS])), draw(SIZES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    scale = draw(st.sampled_from([1.0, 0.01, 30.0]))
    shapes = dict(OTHERS[op])
    if op is lerp and draw(st.booleans()):
        shapes["previous"] = "btd"
    if op is lerp and draw(st.booleans()):
        del shapes["offsets"]
    dtype, other = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES[1:3]))
    mixed = draw(st.sets(st.sampled_from([*shapes]), max_size=1))
    inputs = {
        name: strided((scale * torch.randn(shape_of(axes, sizes), generator=generator)).to(dtype), draw)
        for name, axes in shapes.items()
    }
    inputs = {name: x.to(other) if name in mixed and dtype != torch.float64 else x for name, x in inputs.items()}
    if op in (lerp, token_shift) and shapes.get("previous") != "btd" and draw(st.booleans()):
        inputs["starts"] = torch.rand(shape_of("bt", sizes), generator=generator) < 0.3
    if op is norm_gate:
        inputs["eps"] = 1e-3
    return op, inputs


def results(op, inputs, **options):
    """Outputs and gradients of all real inputs, by name."""
    leaves = {
        name: x.detach().requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
        for name, x in inputs.items()
    }
    found = op(**leaves, **options)
    outputs = [found] if isinstance(found, torch.Tensor) else [*found]
    real = {name: x for name, x in leaves.items() if isinstance(x, torch.Tensor) and x.requires_grad}
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in outputs]
    grads = torch.autograd.grad(outputs, [*real.values()], weights, allow_unused=True)
    named = {f"output {i}": x.detach() for i, x in enumerate(outputs)}
    return named | {f"gradient of {name}": g for name, g in zip(real, grads, strict=True) if g is not None}


def doubled(inputs):
    return {
        name: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for name, x in inputs.items()
    }


def attempt(call):
    """Return the result, or the text of an error that may be raised."""
    try:
        return call()
    except (ValueError, TypeError, RuntimeError) as error:
        return str(error)


def check(op, inputs, backends, **options):
    kinds = [x.dtype for x in inputs.values() if isinstance(x, torch.Tensor) and x.is_floating_point()]
    tolerance = max(TOLERANCE[kind] for kind in kinds)
    truth = results(op, doubled(inputs), **options, **({"backend": "reference"} if backends else {}))
    for backend in backends or [None]:
        named = {} if backend is None else {"backend": backend}
        found = attempt(lambda named=named: results(op, inputs, **options, **named))
        if isinstance(found, str):
            assert re.match(f"{op.__name__}: backend 'cpu' cannot run here: (it computes in fp32|no C)", found)
            assert backend == "cpu"
            continue
        for name, x in found.items():
            y = truth[name]
            assert x.isfinite().all(), (backend, name)
            scale = y.abs().max().clamp_min(1.0)
            assert (x.double() - y).abs().max() <= tolerance * scale, (backend, name)


@FUZZ
@given(wkv_calls())
def test_wkv(call):
    op, inputs, edges = call
    check(op, inputs, ("auto", "cpu", "chunked", "reference"), cu_seqlens=edges)


@FUZZ
@given(other_calls())
def test_elementwise(call):
    op, inputs = call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elementwise, "MIN_NATIVE_ELEMENTS", 0)
        check(op, inputs, () if op is token_shift else ("auto", "cpu", "reference"))


@st.composite
def wrong_calls(draw):
    """A call with one input that does not fit."""
    if draw(st.booleans()):
        op, inputs, edges = draw(wkv_calls())
        inputs["cu_seqlens"] = edges
    else:
        op, inputs = draw(other_calls())
    tensors = [name for name, x in inputs.items() if isinstance(x, torch.Tensor)]
    name = draw(st.sampled_from(tensors))
    x = inputs[name]
    kind = draw(st.sampled_from(["dtype", "axis", "no axis", "size", "empty", "list", "none", "float"]))
    if kind == "none" and name in ("state", "offsets", "starts", "cu_seqlens"):
        kind = "list"
    inputs[name] = {
        "dtype": lambda: x.to(draw(st.sampled_from(WRONG_DTYPES))),
        "axis": lambda: x[None],
        "no axis": lambda: x.flatten(0, 1) if x.dim() > 1 else x.sum(),
        "size": lambda: torch.cat([x, x], -1),
        "empty": lambda: x[..., :0],
        "list": x.tolist,
        "none": lambda: None,
        "float": lambda: 1.0,
    }[kind]()
    return op, inputs


@FUZZ
@given(wrong_calls())
def test_one_wrong_input(call):
    op, inputs = call
    found = attempt(lambda: inspect.unwrap(op)(**inputs))
    assert not isinstance(found, str) or re.fullmatch(f"{op.__name__}: .+", found)
