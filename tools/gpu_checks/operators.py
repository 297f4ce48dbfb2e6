"""Every operator of `mmrnn_kernels`: outputs and all gradients in fp32, bf16 and fp16.

The truth is the reference in fp64 on the CPU, from the same inputs after they were rounded to the type.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

import mmrnn_kernels
from gpu_checks.check import DTYPES, Check, Difference, difference

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}

LENGTHS = (1, 15, 63, 257)
SEGMENTS = (37, 1, 1, 18, 0, 16)
EXTREMES = (500.0, 90.0, 10.0, 5.0, 4.0, 3.0, 0.0, -20.0, -200.0, float("-inf"))
"""Pre-activations of the decay: from a state that is erased to one that is kept."""

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """Inputs of an operator.

    Attributes:
        draw: the differentiable inputs by name, in fp64. `state` stays in fp32, the others get the tested type.
        fixed: further arguments: tensors are moved to the device.
        backends: whether the operator takes `backend`.
    """

    operator: str
    name: str
    draw: Callable[[Generator], Inputs]
    fixed: Mapping[str, object] = field(default_factory=dict)
    backends: bool = True


def checks() -> list[Check]:
    """Every case in every type."""
    return [
        Check(f"operators/{case.operator}/{case.name}/{name}", partial(compare, case, dtype))
        for case in (*wkv_cases(), *delta_cases(), *scan_cases(), *elementwise_cases())
        for name, dtype in DTYPES.items()
    ]


def compare(case: Case, dtype: torch.dtype, device: torch.device) -> list[Difference]:
    """Outputs and gradients of each backend of the device."""
    generator = torch.Generator().manual_seed(0)
    drawn = case.draw(generator)
    given = {name: x.to(torch.float32 if name == "state" else dtype) for name, x in drawn.items()}
    double = {name: x.double() for name, x in given.items()}
    reference = {"backend": "reference"} if case.backends else {}
    shapes = [x.shape for x in outputs(case, double, reference)]
    grads = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    truth = differentiate(case, double, grads, reference)
    found = []
    for backend in backends(device) if case.backends else ("",):
        options = {"backend": backend} if backend else {}
        moved = {name: x.to(device) for name, x in given.items()}
        measured = differentiate(case, moved, grads, options)
        found += [
            difference(f"{backend} {name}".strip(), x, truth[name], BOUNDS[dtype]) for name, x in measured.items()
        ]
    return found


def backends(device: torch.device) -> tuple[str, ...]:
    """Backends to try; on a GPU by name, so that none replaces another."""
    return ("auto", "chunked") if device.type == "cpu" else ("triton", "chunked")


def outputs(case: Case, inputs: Inputs, options: Mapping[str, object]) -> list[Tensor]:
    """Outputs of the operator, as a list."""
    device = next(iter(inputs.values())).device
    fixed = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in case.fixed.items()}
    out = getattr(mmrnn_kernels, case.operator)(**inputs, **fixed, **options)
    return [out] if isinstance(out, Tensor) else list(out)


def differentiate(case: Case, inputs: Inputs, grads: list[Tensor], options: Mapping[str, object]) -> Inputs:
    """Outputs and gradients by name; the type of the output is that of the first input or of the gate."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    found = outputs(case, leaves, options)
    seeds = [grad.to(x.device, x.dtype) for grad, x in zip(grads, found, strict=True)]
    slopes = torch.autograd.grad(found, [*leaves.values()], seeds)
    return {
        **{f"out{i}": x.detach() for i, x in enumerate(found)},
        **{f"d{name}": slope for name, slope in zip(leaves, slopes, strict=True)},
    }


def wkv_cases() -> list[Case]:
    """Odd lengths, further head sizes, packed rows and extreme decays, all with a state."""
    cases = []
    for name in ("wkv5", "wkv6", "wkv7"):
        cases += [Case(name, f"t{t}", partial(wkv_inputs, name, (2, t, 2, 64))) for t in LENGTHS]
        cases += [Case(name, f"k{k}", partial(wkv_inputs, name, (1, 50, 1, k))) for k in (32, 128)]
        packed = {"cu_seqlens": F.pad(torch.tensor(SEGMENTS).cumsum(0), (1, 0))}
        draw = partial(wkv_inputs, name, (1, sum(SEGMENTS), 2, 64), states=len(SEGMENTS))
        cases.append(Case(name, "packed", draw, packed))
        cases.append(Case(name, "extreme decays", partial(wkv_inputs, name, (1, 67, 2, 64), extreme=True)))
    return cases


def wkv_inputs(
    operator: str, size: tuple[int, int, int, int], generator: Generator, states: int = 0, extreme: bool = False
) -> Inputs:
    """Inputs of a WKV operator of size `b t h k`, with typical decays or with extreme ones.

    Args:
        states: initial states; 0: one a row.
    """
    b, _, h, k = size
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    uniform = partial(torch.rand, generator=generator, dtype=torch.float64)
    decays = size[2:] if operator == "wkv5" else size
    w = uniform(decays) * 6 - 7
    if extreme:
        w = torch.tensor(EXTREMES, dtype=torch.float64)[torch.randint(len(EXTREMES), decays, generator=generator)]
    named = {"r": normal(size), "k": normal(size), "v": normal(size), "w": w}
    if operator == "wkv7":
        kappa = F.normalize(normal(size), dim=-1)
        named |= {"a": -kappa, "b": kappa * uniform(size)}
    else:
        named["u"] = normal(size[2:])
    return {**named, "state": normal(states or b, h, k, k)}


def delta_cases() -> list[Case]:
    """The gated delta rule and KDA: odd lengths, further head sizes, and packed rows, all with a state."""
    packed = {"cu_seqlens": F.pad(torch.tensor(SEGMENTS).cumsum(0), (1, 0))}
    cases = []
    for name in ("gated_delta_rule", "kda"):
        cases += [Case(name, f"t{t}", partial(delta_inputs, name, (2, t, 2, 64), 2)) for t in LENGTHS]
        cases += [Case(name, f"k{k}", partial(delta_inputs, name, (1, 50, 1, k), 1)) for k in (32, 128)]
        draw = partial(delta_inputs, name, (1, sum(SEGMENTS), 2, 64), len(SEGMENTS))
        cases.append(Case(name, "packed", draw, packed))
    return cases


def delta_inputs(operator: str, size: tuple[int, int, int, int], states: int, generator: Generator) -> Inputs:
    """Inputs of a delta rule of size `b t h k`: keys and queries of unit length, decays from exp(-4) to 1."""
    b, t, h, k = size
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    uniform = partial(torch.rand, generator=generator, dtype=torch.float64)
    named = {"q": F.normalize(normal(size), dim=-1), "k": F.normalize(normal(size), dim=-1), "v": normal(size)}
    named |= {"g": -4 * uniform((b, t, h) if operator == "gated_delta_rule" else size), "beta": uniform((b, t, h))}
    return {**named, "state": normal(states, h, k, k)}


def scan_cases() -> list[Case]:
    """The selective scan: odd lengths, numbers of channels and of states, and packed rows, all with a state."""
    name, packed = "selective_scan", {"cu_seqlens": F.pad(torch.tensor(SEGMENTS).cumsum(0), (1, 0))}
    draw = partial(scan_inputs, (1, sum(SEGMENTS), 100, 16), len(SEGMENTS))
    return [
        *(Case(name, f"t{t}", partial(scan_inputs, (2, t, 100, 16), 2)) for t in LENGTHS),
        *(Case(name, f"s{s}", partial(scan_inputs, (1, 50, 33, s), 1)) for s in (8, 32, 64)),
        Case(name, "packed", draw, packed),
    ]


def scan_inputs(size: tuple[int, int, int, int], states: int, generator: Generator) -> Inputs:
    """Inputs of the selective scan of size `b t d s`: step sizes from 3e-4 to 1."""
    b, t, d, s = size
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    dt = torch.exp(torch.rand((b, t, d), generator=generator, dtype=torch.float64) * 8 - 8)
    named = {"x": normal(b, t, d), "dt": dt, "a": -normal(d, s).exp(), "b": normal(b, t, s), "c": normal(b, t, s)}
    return {**named, "state": normal(states, d, s)}


def elementwise_cases() -> list[Case]:
    """Rows of odd length; mixtures of packed rows, with offsets, and of given predecessors."""
    size = (2, 131, 192)
    starts = torch.zeros(size[:2], dtype=torch.bool)
    starts[:, [0, 5, 6, 130]] = True
    norm = [{"x": (2, 131, 192 // v, v), "gate": size, "weight": (192,), "bias": (192,)} for v in (32, 48, 64)]
    return [
        Case("token_shift", "rows", partial(named, x=size, last=(2, 192)), backends=False),
        Case("token_shift", "packed", partial(named, x=size, last=(2, 192)), {"starts": starts}, backends=False),
        Case("lerp", "rows", partial(named, x=size, previous=(2, 192), weights=(4, 192))),
        Case("lerp", "packed", partial(named, x=size, previous=(2, 192), weights=(1, 192)), {"starts": starts}),
        Case("lerp", "offsets", partial(named, x=size, previous=(2, 192), weights=(5, 192), offsets=(5, *size))),
        Case("lerp", "predecessors", partial(named, x=size, previous=size, weights=(6, 192))),
        Case("relu_square", "rows", partial(named, x=size)),
        Case("sigmoid_gate", "rows", partial(named, gate=size, x=size)),
        *(Case("norm_gate", f"v{shapes['x'][-1]}", partial(named, **shapes), {"eps": 64e-5}) for shapes in norm),
    ]


def named(generator: Generator, **shapes: tuple[int, ...]) -> Inputs:
    """Normal numbers of these shapes."""
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
