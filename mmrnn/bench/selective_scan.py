"""The selective scan of Mamba: against the plain PyTorch code of transformers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from mmrnn.bench.memory import peak_megabytes
from mmrnn.bench.timing import BenchConfig, Row, Unavailable, Workload, compare, require
from mmrnn_kernels import selective_scan

Size = tuple[int, int, int, int]  # b t d s

PEER = "transformers scan"
BACKENDS = ("cpu", "chunked")


def measure(config: BenchConfig) -> Iterator[Row]:
    """Time the scan, forward alone and with its backward pass, and measure the peak memory of the latter."""
    size, small = ((1, 32, 32, 8), (1, 8, 16, 8)) if config.quick else ((2, 1024, 512, 16), (1, 32, 64, 16))
    b, t, d, s = size
    for backward in (False, True):
        contenders: dict[str, Workload] = {}
        for backend in (PEER, *BACKENDS):
            config.try_add(contenders, label(backend), partial(make_workload, backend, size, backward))
        memory = {
            label(backend): peak_megabytes(run, (backend, small, True), (backend, size, True))
            for backend in (PEER, *BACKENDS)
            if backward and label(backend) in contenders
        }
        case = f"selective_scan B{b} T{t} D{d} S{s} fp32, forward{' and backward' if backward else ''}"
        for row in compare("operator", case, contenders, config, megabytes=memory):
            yield replace(row, memory_kind="peak" if memory else "")


def label(backend: str) -> str:
    """Return the name of a backend in the tables."""
    return backend if backend == PEER else f"mmrnn {backend}"


def make_inputs(size: Size) -> list[Tensor]:
    """Return random arguments of the scan, with the step sizes and rates that Mamba starts with."""
    generator = torch.Generator().manual_seed(0)
    b, t, d, s = size
    steps = torch.exp(torch.rand((b, t, d), generator=generator) * 4.6 - 6.9)  # 0.001 to 0.1
    rates = -torch.arange(1.0, s + 1).expand(d, s).clone()
    x, *reads = (torch.randn((b, t, width), generator=generator) for width in (d, s, s))
    return [x, steps, rates, *reads]


def make_workload(backend: str, size: Size, backward: bool) -> Workload:
    """Return a workload that calls the scan, tried once on a small input.

    Raises:
        Unavailable: the backend cannot run here.
    """
    call, tensors = implementation(backend), make_inputs(size)
    try:
        call(*make_inputs((1, 2, 16, size[3])))
    except RuntimeError as error:
        raise Unavailable(str(error)) from error

    def workload() -> None:
        with torch.set_grad_enabled(backward):
            out = call(*(tensor.requires_grad_(backward) for tensor in tensors))
            if backward:
                torch.autograd.grad(out.sum(), tensors)

    return workload


def run(backend: str, size: Size, backward: bool) -> None:
    """Call the scan once."""
    make_workload(backend, size, backward)()


def implementation(backend: str) -> Callable[..., Tensor]:
    """Return a function of the tensors of `make_inputs` that returns the output.

    Raises:
        Unavailable: transformers is not installed, or a version without the scan as a function.
    """
    if backend != PEER:
        return lambda *tensors: selective_scan(*tensors, backend=backend)[0]
    require("transformers")
    try:
        from transformers.models.mamba.modeling_mamba import mamba_selective_scan
    except ImportError as error:
        raise Unavailable(f"this transformers has no selective scan of its own: {error}") from error

    def scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        turned = (one.transpose(1, 2) for one in (b, c))
        return mamba_selective_scan(x.transpose(1, 2), dt.transpose(1, 2), a, *turned).transpose(1, 2)

    return scan
