"""Benchmarks on an accelerator: operators beside those of flash-linear-attention, RWKV-6 from 0.1B to 7B, a tower.

Fractions of the peak are those of matrix products or memory reads measured in the same run, not of a data sheet.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from mmrnn.bench.memory import memory_rise
from mmrnn.bench.operator import MULTIPLY_ADDS, Size, implementation, make_inputs
from mmrnn.bench.peers import MMRNN, Shape, decode_token, empty_rwkv6, make_rwkv6, state_after
from mmrnn.bench.stream import measure_frames
from mmrnn.bench.timing import BenchConfig, Peaks, Row, Unavailable, Workload, compare, require
from mmrnn.bench.tower import TIMM, tower_flops, tower_sizes
from mmrnn.bench.training import training_step
from mmrnn.config.device import KINDS, device_module
from mmrnn.encoders import TimmViT
from mmrnn.types import Sequence

FLA = "fla"
BACKENDS = ("triton", "chunked")

SHAPES = {
    "0.1B": Shape(65536, 768, 12),
    "0.4B": Shape(65536, 1024, 24),
    "1.6B": Shape(65536, 2048, 24),
    "3B": Shape(65536, 2560, 32),
    "7B": Shape(65536, 4096, 32),
}
"""Published sizes of RWKV-6."""


def measure_operators(config: BenchConfig) -> Iterator[Row]:
    """Time each operator in bf16, forward alone and with its backward pass, beside fla's kernel."""
    size = (1, 32, 2, 32) if config.quick else (8, 4096, 32, 64)
    b, t, h, k = size
    peak = Peaks.measure(config).bf16
    for operator, multiply_adds in MULTIPLY_ADDS.items():
        for backward in (False, True):
            contenders: dict[str, Workload] = {}
            for name in (*BACKENDS, FLA):
                make = partial(operator_workload, operator, name, size, backward, config.device)
                config.try_add(contenders, name if name == FLA else f"mmrnn {name}", make)
            counted = backward and KINDS[config.device.type].memory_figures
            memory = {name: memory_rise(run, config.device)[1] for name, run in contenders.items() if counted}
            case = f"{operator} B{b} T{t} H{h} K{k} bf16, forward{' and backward' if backward else ''}"
            for row in compare("operator", case, contenders, config, megabytes=memory):
                flops = 2 * multiply_adds * b * t * h * k * k / row.seconds
                yield replace(
                    row, peak_fraction=None if backward else flops / peak, memory_kind="peak" if backward else ""
                )


def operator_workload(operator: str, name: str, size: Size, backward: bool, device: torch.device) -> Workload:
    """Return a workload that calls an operator with inputs in bf16; it has run once, so all kernels are compiled.

    Raises:
        Unavailable: the backend cannot run here, or fla is not installed.
    """
    call = fla_kernel(operator, device) if name == FLA else implementation(operator, name)
    tensors = [x.to(device, torch.bfloat16).requires_grad_(backward) for x in make_inputs(operator, size, high=-1.0)]
    seed = torch.ones(size, device=device, dtype=torch.bfloat16)

    def workload() -> None:
        with torch.set_grad_enabled(backward):
            out = call(*tensors)
            if backward:
                torch.autograd.grad(out, tensors, seed.to(out.dtype))

    try:
        workload()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if device.type == "cuda" and name != FLA:  # ours has to run there
            raise
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    return workload


def fla_kernel(operator: str, device: torch.device) -> Callable[..., Tensor]:
    """Return fla's chunked kernel with our arguments; an expanded decay makes that of RWKV-6 one of RWKV-5.

    Raises:
        Unavailable: flash-linear-attention is not installed, or the device is no CUDA GPU.
    """
    require("fla", "flash-linear-attention")
    if device.type != "cuda":
        raise Unavailable("its kernels are called on a CUDA GPU alone")
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    from fla.ops.kda import chunk_kda
    from fla.ops.rwkv6 import chunk_rwkv6
    from fla.ops.rwkv7 import chunk_rwkv7

    def wkv6(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
        return chunk_rwkv6(r, k, v, -w.exp().expand_as(r), u, scale=1.0)[0]

    def wkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return chunk_rwkv7(r, -w.exp(), k, v, a, b, scale=1.0)[0]

    def delta(*inputs: Tensor) -> Tensor:
        kernel = chunk_kda if operator == "kda" else chunk_gated_delta_rule
        return kernel(*inputs, scale=1.0)[0]

    return {"wkv7": wkv7, "gated_delta_rule": delta, "kda": delta}.get(operator, wkv6)


def shapes(config: BenchConfig) -> Mapping[str, Shape]:
    """Return the sizes to measure by name."""
    return {"tiny": Shape.of(config)} if config.quick else SHAPES


def run_one(config: BenchConfig, part: str, case: str, make: Callable[[], Workload]) -> list[Row]:
    """Time RWKV-6 alone; no row where its memory does not fit, which is noted."""
    contenders: dict[str, Workload] = {}
    config.try_add(contenders, case, lambda: warm(make()))
    rows = compare(part, case, {MMRNN: contenders[case]}, config) if contenders else []
    contenders.clear()
    if not config.on_cpu:
        device_module(config.device).empty_cache()
    return rows


def warm(workload: Workload) -> Workload:
    """Run a workload once and return it."""
    workload()
    return workload


@torch.no_grad()
def measure_decoding(config: BenchConfig) -> Iterator[Row]:
    """Time a token of one row and of 32 rows in bf16, from 0.1B to 7B: the fraction is that of the memory bandwidth."""
    bandwidth = Peaks.measure(config).bandwidth
    for size, shape in shapes(config).items():
        for count in (1, 32):
            case = f"{size} ({shape}) bf16, one token of {count} rows"
            for row in run_one(config, "decode", case, partial(token_workload, shape, count, config.device)):
                # A token reads a few rows of the embedding, all other weights, and reads and writes the states.
                read = weight_count(shape, head=True) * 2 + 2 * state_bytes(shape) * count
                yield replace(row, peak_fraction=read / row.seconds / bandwidth)


def token_workload(shape: Shape, count: int, device: torch.device) -> Workload:
    """Return a workload that decodes one token of `count` rows."""
    model = make_rwkv6(shape, "bf16", device)
    return decode_token(model, state_after(model, 8, count))


@torch.no_grad()
def measure_prefill(config: BenchConfig) -> Iterator[Row]:
    """Time a prompt in bf16, from 0.1B to 7B: the fraction is that of the matrix products."""
    length, peak = 64 if config.quick else 4096, Peaks.measure(config).bf16
    for size, shape in shapes(config).items():
        case = f"{size} ({shape}) bf16, {length} tokens"
        for row in run_one(config, "prefill", case, partial(prompt_workload, shape, length, config.device)):
            yield replace(row, peak_fraction=2 * weight_count(shape) * length / row.seconds / peak)


def prompt_workload(shape: Shape, length: int, device: torch.device) -> Workload:
    """Return a workload that reads a prompt at once."""
    model = make_rwkv6(shape, "bf16", device)
    sequence = Sequence(torch.randint(0, shape.vocab, (1, length), device=device))
    return lambda: model(sequence)


def measure_training(config: BenchConfig) -> Iterator[Row]:
    """Time a training step of 1.6B, of weights in fp32 under autocast to bf16: the fraction is the MFU.

    Model FLOPs are 6 times the weights (without the embedding) times the tokens (arXiv 2204.02311, appendix B, without
    its attention term); what gradient checkpointing computes again does not count.
    """
    size, shape = [*shapes(config).items()][min(2, len(shapes(config)) - 1)]
    count, length = (2, 16) if config.quick else (8, 1024)
    case = f"{size} ({shape}) autocast bf16, AdamW, {count} x {length} tokens"
    peak = Peaks.measure(config).bf16
    for row in run_one(config, "training", case, partial(step_workload, shape, (count, length), config.device)):
        flops = 6 * weight_count(shape, head=True) * count * length
        yield replace(row, peak_fraction=flops / row.seconds / peak)


def step_workload(shape: Shape, tokens: tuple[int, int], device: torch.device) -> Workload:
    """Return a workload that trains RWKV-6 for one step."""
    model = make_rwkv6(shape, "fp32", device, grad_checkpointing=1)
    ids = torch.randint(0, shape.vocab, tokens, device=device)

    def logits() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return model.head(model(Sequence(ids))[0])

    return training_step(model, logits, ids)


@torch.no_grad()
def measure_tower(config: BenchConfig) -> Iterator[Row]:
    """Time ViT-L/14 at 336 pixels, a batch of images in fp32 and bf16, where timm is installed."""
    peaks, count = Peaks.measure(config), 2 if config.quick else 32
    for name, dtype, peak in (("fp32", "float32", peaks.fp32), ("bf16", "bfloat16", peaks.bf16)):
        tower = config.try_make(TIMM, partial(make_tower, dtype, config))
        if tower is None:
            return
        images = torch.randn(count, 3, *tower.image.size, device=config.device)
        case = f"ViT-L/14, {tower.image.size[0]} pixels, {count} images, {name}"
        for row in compare("tower", case, {TIMM: lambda t=tower, x=images: t(x)}, config):
            yield replace(row, peak_fraction=count * tower_flops(tower) / row.seconds / peak)


def make_tower(dtype: str, config: BenchConfig) -> nn.Module:
    """Create the tower.

    Raises:
        Unavailable: timm is not installed.
    """
    require("timm")
    return TimmViT(dtype=dtype, **tower_sizes(config)).eval().to(config.device)


def weight_count(shape: Shape, head: bool = False) -> int:
    """Return the number of weights of RWKV-6 without the embedding, and without the head unless `head`."""
    model = empty_rwkv6(shape)
    own = [model.embedding, *(() if head else (model.output,))]
    return sum(p.numel() for p in model.parameters()) - sum(part.weight.numel() for part in own)


def state_bytes(shape: Shape) -> int:
    """Return the size of the state of one row, kept in fp32, without the token shifts."""
    return 4 * shape.depth * shape.width * 64


PARTS: Mapping[str, Callable[[BenchConfig], Iterator[Row]]] = {
    "operator": measure_operators,
    "prefill": measure_prefill,
    "decode": measure_decoding,
    "training": measure_training,
    "tower": measure_tower,
    "stream": measure_frames,
}
"""Benchmark -> function that measures it."""
