"""Any preset at its full size with random weights: first token, tokens a second and memory, for several prompts."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmrnn.bench.headline import Decoding, Reading
from mmrnn.bench.memory import memory_rise
from mmrnn.bench.peers import DTYPES
from mmrnn.bench.timing import BenchConfig, Row, Unavailable, compare
from mmrnn.config.compose import compose
from mmrnn.config.device_memory import free_memory
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.model.start import build_on_meta
from mmrnn.model.vlm import VLM
from mmrnn.types import SLOT, Batch, ImageSpan, Sequence

NOISE = 2**20
"""Random numbers that are drawn; weights repeat them, as billions take minutes to draw."""


@torch.no_grad()
def measure(config: BenchConfig) -> Iterator[Row]:
    """Time the first token of prompts of several lengths, image included, and the tokens behind it.

    Raises:
        ConfigError: the overrides do not fit, the model generates no text, or memory does not hold its weights.
    """
    model, _ = build_on_meta({**plain(compose(*config.overrides, dirs=config.dirs)), "weights": {}})
    weights = check_memory(model, config)
    fill(model, DTYPES[config.precision], config.device)
    name = " ".join(config.overrides)
    for length in (32,) if config.quick else config.prompts:
        batch = config.try_make(f"{name}, a prompt of {length:,}", lambda length=length: prompt(model, length))
        if batch is None:
            continue
        yield from measure_prompt(model, name, batch, weights, config)


def check_memory(model: VLM, config: BenchConfig) -> int:
    """Return the bytes of the weights.

    Raises:
        ConfigError: the model generates no text, or memory does not hold it.
    """
    if not model.backbone.generates:
        raise ConfigError(f"backbone: {type(model.backbone).__name__} generates no text; choose a preset that does")
    weights = DTYPES[config.precision].itemsize * sum(parameter.numel() for parameter in model.parameters())
    free = free_memory(config.device)
    if free is not None and weights > 0.9 * free:
        raise ConfigError(
            f"{' '.join(config.overrides)}: its weights take {weights / 1e9:.1f} GB in {config.precision}, and "
            f"{free / 1e9:.1f} GB are free; choose --precision bf16, a smaller preset or a machine with more memory"
        )
    return weights


def fill(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter memory and random values; tied parameters stay tied, buffers keep their values."""
    noise, made = torch.randn(NOISE), {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fresh = made.get(id(parameter))
                if fresh is None:
                    value = random_values(name, type(module).__name__, parameter.shape, noise).to(device, dtype)
                    made[id(parameter)] = fresh = nn.Parameter(value, requires_grad=False)
                module._parameters[name] = fresh
    model.to(device=device, dtype=dtype).eval()


def random_values(name: str, owner: str, shape: torch.Size, noise: Tensor) -> Tensor:
    """Return values under which activations neither vanish nor grow: small matrices, scales of norms near 1."""
    flat = noise.repeat(-(-shape.numel() // len(noise)))[: shape.numel()]
    if len(shape) > 1:
        return flat.view(shape) * (0.5 / shape[-1] ** 0.5)
    if "norm" in owner.lower() and name == "weight":
        return torch.ones(shape)
    return flat.view(shape) * 0.1 - (2.0 if "decay" in name else 0.0)


def prompt(model: VLM, length: int) -> Batch:
    """Return a prompt of so many positions: one input of every modality, and text.

    Raises:
        Unavailable: the inputs alone are longer.
    """
    weight = next(model.parameters())
    ids = torch.ones(1, length, dtype=torch.long, device=weight.device)
    spans, inputs, start = [], {}, 1
    for name, modality in model.modalities.items():
        height, width = modality.image.size
        layout = modality.layout(height, width)
        if start + layout.tokens >= length:
            raise Unavailable(f"its {name} alone takes {layout.tokens} positions")
        channels = () if modality.image.resize == "none" else (3,)
        inputs[name] = torch.rand(1, *channels, height, width).to(weight)
        ids[:, start : start + layout.tokens] = SLOT
        spans.append(ImageSpan(0, start, layout, name))
        start += layout.tokens
    return Batch(Sequence(ids, tuple(spans)), inputs)


def measure_prompt(model: VLM, name: str, batch: Batch, weights: int, config: BenchConfig) -> Iterator[Row]:
    """Rows of the first token and of a token behind it; memory is that of weights and state, and the peak's rise."""
    context = batch.sequence.ids.shape[1]
    read = Reading(model, batch, None)
    fewer = replace(config, min_rounds=min(2, config.max_rounds), seconds=config.seconds / 4)
    case = f"{name} {config.precision}, a prompt of {context:,}"
    [first], peak = memory_rise(lambda: compare("preset", case, {"first token": read}, fewer), config.device)
    run = Decoding(model, read.after)
    held = (weights + run.state.nbytes) / 1e6
    yield replace(first, context=context, megabytes=held, memory_kind="weights and state", process_megabytes=peak)
    [token] = compare("preset", case, {"a token": run}, replace(fewer, min_rounds=min(8, config.max_rounds)))
    yield replace(token, context=context, megabytes=held, memory_kind="weights and state")
