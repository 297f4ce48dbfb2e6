"""The WKV operators, beside the plain PyTorch recurrence of flash-linear-attention."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

import mmrnn_kernels
from mmrnn.benchmarks.memory import peak
from mmrnn.benchmarks.method import Effort, Missing, Peaks, Row, Work, compare, need
from mmrnn.benchmarks.rivals import FLA

Size = tuple[int, int, int, int]  # b t h k

OPERATORS = ("wkv5", "wkv6")
BACKENDS = ("cpu", "chunked")


def measure(effort: Effort) -> Iterator[Row]:
    size, small = ((1, 32, 2, 16), (1, 8, 1, 16)) if effort.quick else ((2, 1024, 8, 64), (1, 32, 1, 64))
    b, t, h, k = size
    best = Peaks.measure(effort).fp32
    for operator in OPERATORS:
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
                # Three multiplications and additions for every entry of the state.
                share = None if gradients or row.who == FLA else 6 * b * t * h * k * k / row.seconds / best
                yield Row(**{**vars(row), "share": share, "what": "peak" if memory else ""})


def label(who: str) -> str:
    return who if who == FLA else f"mmrnn {who}"


def inputs(operator: str, size: Size) -> list[Tensor]:
    """r, k, v, w, u with pre-activations of the decay in [-8, 5]: from no decay to a complete one."""
    generator = torch.Generator().manual_seed(0)
    r, k, v = (torch.randn(size, generator=generator) for _ in range(3))
    shape = size if operator == "wkv6" else size[2:]
    return [r, k, v, torch.rand(shape, generator=generator) * 13 - 8, torch.randn(size[2:], generator=generator)]


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fla.ops.rwkv6.recurrent_naive import naive_recurrent_rwkv6

    def theirs(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
        swapped = [x.transpose(1, 2).contiguous() for x in (r, k, v, -w.exp().expand_as(r))]
        return naive_recurrent_rwkv6(*swapped, u, scale=1.0)[0]

    return theirs
