"""WKV operators, the gated delta rule and the selective scan: against PyTorch code of fla and of transformers."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from inspect import unwrap

import torch
from torch import Tensor, nn

from mmrnn.bench import selective_scan
from mmrnn.bench.memory import peak_megabytes
from mmrnn.bench.peers import FLA
from mmrnn.bench.timing import BenchConfig, Peaks, Row, Unavailable, Workload, compare, require
from mmrnn_kernels import gated_delta_rule, kda, wkv5, wkv6, wkv7

Size = tuple[int, int, int, int]  # b t h k

MULTIPLY_ADDS = {"wkv5": 3, "wkv6": 3, "wkv7": 5, "gated_delta_rule": 4, "kda": 4}
"""Multiply-adds per entry of the state: decay, writes and reads; WKV-7 has two of each, a delta rule one write."""

TRANSFORMERS = "transformers chunked"
PEERS = {"gated_delta_rule": (FLA, TRANSFORMERS)}
"""Other libraries' code for an operator; that of fla is there for all."""

OPERATORS = {op.__name__: op for op in (wkv5, wkv6, wkv7, gated_delta_rule, kda)}
BACKENDS = ("cpu", "chunked")


def measure(config: BenchConfig) -> Iterator[Row]:
    """Time each operator, forward alone and with its backward pass, and measure the peak memory of the latter."""
    size, small = ((1, 32, 2, 16), (1, 8, 1, 16)) if config.quick else ((2, 1024, 8, 64), (1, 32, 1, 64))
    b, t, h, k = size
    peak = Peaks.measure(config).fp32
    for operator, multiply_adds in MULTIPLY_ADDS.items():
        backends = (*PEERS.get(operator, (FLA,)), *BACKENDS)
        for backward in (False, True):
            contenders: dict[str, Workload] = {}
            for backend in backends:
                config.try_add(contenders, label(backend), partial(make_workload, operator, backend, size, backward))
            memory = {
                label(backend): peak_megabytes(run, (operator, backend, small, True), (operator, backend, size, True))
                for backend in backends
                if backward and label(backend) in contenders
            }
            case = f"{operator} B{b} T{t} H{h} K{k} fp32, forward{' and backward' if backward else ''}"
            for row in compare("operator", case, contenders, config, megabytes=memory):
                flops = 2 * multiply_adds * b * t * h * k * k / row.seconds
                fraction = None if backward or row.name in (FLA, TRANSFORMERS) else flops / peak
                yield replace(row, peak_fraction=fraction, memory_kind="peak" if memory else "")
    yield from selective_scan.measure(config)


def label(backend: str) -> str:
    """Return the name of a backend in the tables."""
    return backend if backend in (FLA, TRANSFORMERS) else f"mmrnn {backend}"


def make_inputs(operator: str, size: Size, high: float = 5.0) -> list[Tensor]:
    """Return random arguments of an operator, in order; decay pre-activations are uniform in [-8, high]."""
    generator = torch.Generator().manual_seed(0)
    r, k, v = (torch.randn(size, generator=generator) for _ in range(3))
    if operator in ("gated_delta_rule", "kda"):
        decays = size if operator == "kda" else size[:3]
        g = -torch.exp(torch.rand(decays, generator=generator) * (high + 8) - 8)
        return [r, nn.functional.normalize(k, dim=-1), v, g, torch.rand(size[:3], generator=generator)]
    if operator == "wkv7":
        w = torch.rand(size, generator=generator) * (high + 8) - 8
        kappa = nn.functional.normalize(torch.randn(size, generator=generator), dim=-1)
        return [r, w, k, v, -kappa, kappa * torch.rand(size, generator=generator)]
    w = torch.rand(size if operator == "wkv6" else size[2:], generator=generator) * (high + 8) - 8
    return [r, k, v, w, torch.randn(size[2:], generator=generator)]


def make_workload(operator: str, backend: str, size: Size, backward: bool) -> Workload:
    """Return a workload that calls an operator, tried once on a small input.

    Raises:
        Unavailable: the backend cannot run here.
    """
    call, tensors = implementation(operator, backend), make_inputs(operator, size)
    try:
        call(*make_inputs(operator, (1, 2, 1, size[3])))
    except RuntimeError as error:
        raise Unavailable(str(error)) from error

    def workload() -> None:
        with torch.set_grad_enabled(backward):
            out = call(*(tensor.requires_grad_(backward) for tensor in tensors))
            if backward:
                torch.autograd.grad(out.sum(), tensors)

    return workload


def run(operator: str, backend: str, size: Size, backward: bool) -> None:
    """Call an operator once."""
    make_workload(operator, backend, size, backward)()


def implementation(operator: str, backend: str) -> Callable[..., Tensor]:
    """Return a function of the tensors of `make_inputs` that returns the output.

    Raises:
        Unavailable: the other library is not installed.
    """
    if backend == TRANSFORMERS:
        return transformers_delta()
    if backend != FLA:
        op = OPERATORS[operator]
        return lambda *tensors: op(*tensors, backend=backend)[0]
    require("fla", "flash-linear-attention")
    makers = {"wkv7": fla_wkv7, "gated_delta_rule": fla_delta, "kda": fla_kda}
    return makers.get(operator, fla_wkv6)()


def fla_wkv6() -> Callable[..., Tensor]:
    """Return fla's recurrence of RWKV-6 with our arguments; a decay without batch and time makes it RWKV-5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fla.ops.rwkv6.recurrent_naive import naive_recurrent_rwkv6

    def wkv6(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
        # fla: b h t k, and log decay instead of its pre-activation
        transposed = [x.transpose(1, 2).contiguous() for x in (r, k, v, -w.exp().expand_as(r))]
        return naive_recurrent_rwkv6(*transposed, u, scale=1.0)[0].transpose(1, 2)

    return wkv6


def fla_wkv7() -> Callable[..., Tensor]:
    """Return fla's recurrence of RWKV-7 with our arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fla.ops.generalized_delta_rule.dplr.naive import dplr_recurrence

    def wkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        scale = r.shape[-1] ** 0.5  # fla divides the queries by it
        transposed = [x.transpose(1, 2).contiguous() for x in (r * scale, k, v, a, b, -w.exp())]
        return dplr_recurrence(*transposed)[0].transpose(1, 2)

    return wkv7


def fla_delta() -> Callable[..., Tensor]:
    """Return fla's recurrence of the gated delta rule with our arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule

    return lambda q, k, v, g, beta: naive_recurrent_gated_delta_rule(q, k, v, beta, g, scale=1.0)[0]


def fla_kda() -> Callable[..., Tensor]:
    """Return fla's recurrence of KDA with our arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fla.ops.kda.naive import naive_recurrent_kda

    return lambda q, k, v, g, beta: naive_recurrent_kda(q, k, v, g, beta, scale=1.0)[0]


def transformers_delta() -> Callable[..., Tensor]:
    """Return the chunked gated delta rule of transformers, which it runs without fla, with our arguments.

    Raises:
        Unavailable: transformers is not installed.
    """
    require("transformers")
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

    # Where fla is installed, the name is bound to its kernels for GPUs.
    chunked = unwrap(torch_chunk_gated_delta_rule)

    def delta(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
        return chunked(q * q.shape[-1] ** 0.5, k, v, g, beta)[0]

    return delta
