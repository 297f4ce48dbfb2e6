"""The WKV operators, beside the plain PyTorch recurrence of flash-linear-attention."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

import mmrnn_kernels
from mmrnn.bench.memory import peak
from mmrnn.bench.peers import FLA
from mmrnn.bench.timing import BenchConfig, Missing, Peaks, Row, Work, compare, need

Size = tuple[int, int, int, int]  # b t h k

# Multiplications with additions for every entry of the state: the decay, the write and the read; WKV-7 reads twice and
# writes twice.
PRODUCTS = {"wkv5": 3, "wkv6": 3, "wkv7": 5}
BACKENDS = ("cpu", "chunked")


def measure(effort: BenchConfig) -> Iterator[Row]:
    size, small = ((1, 32, 2, 16), (1, 8, 1, 16)) if effort.quick else ((2, 1024, 8, 64), (1, 32, 1, 64))
    b, t, h, k = size
    best = Peaks.measure(effort).fp32
    for operator, products in PRODUCTS.items():
        for gradients in (False, True):
            sides: dict[str, Work] = {}
            for who in (FLA, *BACKENDS):
                effort.offer(sides, label(who), partial(ready, operator, who, size, gradients))
            memory = {
                label(who): peak(run, (operator, who, small, gradients), (operator, who, size, gradients))
                for who in (FLA, *BACKENDS)
                if gradients and label(who) in sides
            }
            case = f"{operator} B{b} T{t} H{h} K{k} fp32, forward{' and backward' if gradients else ''}"
            for row in compare("operator", case, sides, effort, megabytes=memory):
                rate = 2 * products * b * t * h * k * k / row.seconds
                share = None if gradients or row.who == FLA else rate / best
                yield Row(**{**vars(row), "share": share, "what": "peak" if memory else ""})


def label(who: str) -> str:
    return who if who == FLA else f"mmrnn {who}"


def inputs(operator: str, size: Size) -> list[Tensor]:
    """What the operator takes, in its order; pre-activations of the decay in [-8, 5]: from none to a complete one."""
    generator = torch.Generator().manual_seed(0)
    r, k, v = (torch.randn(size, generator=generator) for _ in range(3))
    if operator == "wkv7":
        w = torch.rand(size, generator=generator) * 13 - 8
        kappa = nn.functional.normalize(torch.randn(size, generator=generator), dim=-1)
        return [r, w, k, v, -kappa, kappa * torch.rand(size, generator=generator)]
    w = torch.rand(size if operator == "wkv6" else size[2:], generator=generator) * 13 - 8
    return [r, k, v, w, torch.randn(size[2:], generator=generator)]


def ready(operator: str, who: str, size: Size, gradients: bool) -> Work:
    """
    Raises:
        Missing: it cannot run here.
    """
    call, tensors = implementation(operator, who), inputs(operator, size)
    try:
        call(*inputs(operator, (1, 2, 1, size[3])))
    except RuntimeError as fault:
        raise Missing(str(fault)) from fault

    def work() -> None:
        with torch.set_grad_enabled(gradients):
            out = call(*(tensor.requires_grad_(gradients) for tensor in tensors))
            if gradients:
                torch.autograd.grad(out.sum(), tensors)

    return work


def run(operator: str, who: str, size: Size, gradients: bool) -> None:
    ready(operator, who, size, gradients)()


def implementation(operator: str, who: str) -> Callable[..., Tensor]:
    if who != FLA:
        op = getattr(mmrnn_kernels, operator)
        return lambda *tensors: op(*tensors, backend=who)[0]
    need("fla", "flash-linear-attention")
    return recurrence7() if operator == "wkv7" else recurrence6()


def recurrence6() -> Callable[..., Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fla.ops.rwkv6.recurrent_naive import naive_recurrent_rwkv6

    def theirs(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
        swapped = [x.transpose(1, 2).contiguous() for x in (r, k, v, -w.exp().expand_as(r))]
        return naive_recurrent_rwkv6(*swapped, u, scale=1.0)[0].transpose(1, 2)

    return theirs


def recurrence7() -> Callable[..., Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fla.ops.generalized_delta_rule.dplr.naive import dplr_recurrence

    def theirs(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        scale = r.shape[-1] ** 0.5  # it divides what reads by this
        swapped = [x.transpose(1, 2).contiguous() for x in (r * scale, k, v, a, b, -w.exp())]
        return dplr_recurrence(*swapped)[0].transpose(1, 2)

    return theirs
