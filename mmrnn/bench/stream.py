"""A video that is read frame by frame: a frame after some minutes, beside a transformer whose cache grows."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import torch
from torch import nn

from mmrnn.bench.memory import peak_megabytes
from mmrnn.bench.peers import DTYPES, MMRNN, Shape, make_rwkv6
from mmrnn.bench.timing import CPU, BenchConfig, Peaks, Row, Workload, compare
from mmrnn.bench.training import TRANSFORMER, make_transformer
from mmrnn.connectors import Linear
from mmrnn.encoders import PatchEmbed
from mmrnn.model.vlm import VLM, Modality
from mmrnn.types import SLOT, Backbone, Batch, ImageSpan, Sequence, State

KINDS = (TRANSFORMER, MMRNN)

PATCH, SIDE, WIDTH = 16, 128, 256
"""Of the projection that stands for a tower, whose cost is the same for both."""

POSITIONS = (SIDE // PATCH) ** 2 + 1
"""Of a frame: its visual tokens, and a token of text between two frames."""

MAX_CACHE = 4e9
"""Bytes of the largest cache that is filled; reading a frame copies it."""


def shapes(config: BenchConfig) -> dict[str, Shape]:
    """Return the sizes of the language models by name."""
    return {"quick": Shape.of(config)} if config.quick else {"tiny": Shape(1024, 192, 3), "100M": Shape(32000, 768, 12)}


def measure(config: BenchConfig) -> Iterator[Row]:
    """Time a frame after some minutes, with the size of state or cache and the memory that a process needs for it."""
    for row in measure_frames(config):
        kind, frames = row.name, round(row.minutes * 60 * config.fps)
        shape = shapes(config)[row.case.split()[0]]
        yield replace(row, process_megabytes=peak_megabytes(watch, (kind, shape, 1), (kind, shape, frames)))


@torch.no_grad()
def measure_frames(config: BenchConfig) -> Iterator[Row]:
    """Time a frame after some minutes, with the size of state or cache; on an accelerator in bf16."""
    dtype, peaks = ("fp32" if config.on_cpu else "bf16"), Peaks.measure(config)
    for size, shape in shapes(config).items():
        models = {kind: make_model(kind, shape, dtype, config.device) for kind in KINDS}
        for minutes in (0.05, 0.1) if config.quick else (1, 5, 10, 60):
            frames = round(minutes * 60 * config.fps)
            contenders: dict[str, Workload] = {}
            megabytes: dict[str, float] = {}
            for kind, model in models.items():
                if (cached := cache_bytes(model, frames)) > MAX_CACHE:
                    fault = f"a cache of {cached / 1e9:.1f} GB is more than {MAX_CACHE / 1e9:.0f}"
                    config.skipped.append(f"{kind} {size}, {minutes} minutes: {fault}")
                    continue
                state = state_after_frames(model, frames)
                contenders[kind], megabytes[kind] = read_frame(model, state), state.nbytes / 1e6
            case = f"{size} {dtype}, {minutes} min"
            fewer = replace(config, seconds=config.seconds / 4)
            for row in compare("stream", case, contenders, fewer, megabytes=megabytes):
                fraction = frame_flops(models[row.name], frames) / row.seconds / peaks.of(dtype)
                yield replace(row, memory_kind="state", minutes=minutes, peak_fraction=fraction)


@torch.no_grad()
def watch(kind: str, shape: Shape, frames: int) -> None:
    """Read two frames after others; the model is kept for the next call."""
    model = kept_model(kind, shape)
    state = state_after_frames(model, frames)
    for _ in range(2):
        state = model(frame_batch(model), state).state


@cache
def kept_model(kind: str, shape: Shape) -> VLM:
    """Return a model in fp32 on the CPU, the same one for the same arguments."""
    return make_model(kind, shape, "fp32", CPU)


def make_model(kind: str, shape: Shape, dtype: str, device: torch.device) -> VLM:
    """Create a model of RWKV-6 or of the transformer, that reads projected patches."""
    backbone: Backbone = make_rwkv6(shape) if kind == MMRNN else make_transformer(shape)
    image = Modality(PatchEmbed(patch=PATCH, width=WIDTH, size=SIDE), Linear(WIDTH, shape.width))
    return VLM(backbone, {"image": image}).to(device, DTYPES[dtype]).eval()


def frame_batch(model: VLM) -> Batch:
    """Return one random frame, and a token of text before it."""
    weight = next(model.parameters())
    ids = torch.tensor([[1] + [SLOT] * (POSITIONS - 1)], device=weight.device)
    span = ImageSpan(0, 1, model.modalities["image"].layout(SIDE, SIDE))
    return Batch(Sequence(ids, (span,)), {"image": torch.randn(1, 3, SIDE, SIDE).to(weight)})


def read_frame(model: VLM, state: State) -> Workload:
    """Return a workload that reads one frame from the same state."""
    batch = frame_batch(model)
    return lambda: model(batch, state).state


def state_after_frames(model: VLM, frames: int) -> State:
    """Return the state of RWKV-6 after two frames, whose size is that after any number; a cache of random numbers."""
    state = model.backbone.state(1)
    if model.backbone.recurrent:
        for _ in range(2):
            state = model(frame_batch(model), state).state
        return state
    length = frames * POSITIONS

    def filled(empty: torch.Tensor) -> torch.Tensor:
        return torch.randn(*empty.shape[:2], length, empty.shape[3], dtype=empty.dtype, device=empty.device)

    layers = tuple({name: filled(empty) for name, empty in layer.items()} for layer in state.layers)
    return State(layers, {"next_position": state.shared["next_position"] + length}, state.origin)


def cache_bytes(model: VLM, frames: int) -> int:
    """Return the bytes that are cached of some frames; 0: nothing grows with them."""
    if model.backbone.recurrent:
        return 0
    layers = model.backbone.state(1).layers
    return frames * POSITIONS * sum(x.shape[1] * x.shape[3] * x.itemsize for layer in layers for x in layer.values())


def frame_flops(model: VLM, frames: int) -> int:
    """Return the floating-point operations of a frame: products with the weights of the blocks, and attention."""
    blocks: nn.Module = model.backbone.blocks
    weights = sum(parameter.numel() for parameter in blocks.parameters() if parameter.dim() == 2)
    cached = 0 if model.backbone.recurrent else frames * POSITIONS + POSITIONS / 2
    return 2 * weights * POSITIONS + round(4 * model.backbone.depth * POSITIONS * cached * model.backbone.width)
