"""Speed and memory against the context: VisualRWKV-6 and -7 and LLaVA-1.5 of equal size measured, 7B computed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from mmrnn.backbones import RWKV6, RWKV7, Transformer
from mmrnn.bench.data_sheets import GPUS
from mmrnn.bench.peers import DTYPES, Shape
from mmrnn.bench.roofline import ModelCost
from mmrnn.bench.timing import BenchConfig, Row, Workload, compare
from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.connectors import MLP, Linear
from mmrnn.encoders import PatchEmbed
from mmrnn.model.build import build
from mmrnn.model.vlm import VLM, Modality
from mmrnn.types import SLOT, Backbone, Batch, ImageSpan, Sequence, State

RWKV_6, RWKV_7, LLAVA = "VisualRWKV-6", "VisualRWKV-7", "LLaVA-1.5"
SHAPE = Shape(4096, 256, 4)
"""Of the language models that are measured: the long prompts of three models take minutes on one core."""

PUBLISHED = {
    f"{LLAVA} 7B": ("model=llava15_7b",),
    f"{RWKV_6} 7B": ("model=visualrwkv6_7b",),
    f"{RWKV_7} 7.2B": ("model=visualrwkv7_1b5", "backbone=rwkv7_7b2"),
}
"""Presets that are computed; the last one has not been released with images."""

QUICK = {LLAVA: ("model=llava15_tiny",), RWKV_6: ("model=visualrwkv6_tiny",), RWKV_7: ("model=visualrwkv7_tiny",)}
NAMED = ("l20_48g", "a100_80g", "h100_80g")
"""GPUs that are computed. The published figures, 3.98 times as fast with 54 % less memory, are of an L20."""


@dataclass(frozen=True)
class Contexts:
    """Lengths that are measured.

    Attributes:
        piece: positions that are read at once; the first piece holds the image.
        side: of the image in pixels, in patches of 14.
        shared: positions after which all models are measured.
        long: those after which the RNNs go on alone.
    """

    piece: int = 1024
    side: int = 336
    shared: tuple[int, ...] = tuple(1024 * k for k in (1, 2, 4, 8, 16, 24))
    long: tuple[int, ...] = tuple(1024 * k for k in (103, 256))

    @classmethod
    def of(cls, config: BenchConfig) -> "Contexts":
        """Return the lengths that a benchmark uses."""
        return cls(16, 28, (16, 32), (64,)) if config.quick else cls()


def measure(config: BenchConfig) -> Iterator[Row]:
    """Time the first token and a token after each length, then compute those of the published sizes."""
    shape = Shape(64, 64, 2) if config.quick else SHAPE
    yield from measure_lengths(make_models(shape, config), str(shape), Contexts.of(config), config)
    yield from compute(QUICK if config.quick else PUBLISHED, Contexts.of(config))


def make_models(shape: Shape, config: BenchConfig) -> dict[str, VLM]:
    """Create models whose backbones have as many parameters as RWKV-6, by the width of their feed-forward layers."""
    sizes = {"vocab": shape.vocab, "width": shape.width, "depth": shape.depth}
    with torch.device("meta"):
        wanted = count(RWKV6(**sizes))
    torch.manual_seed(0)
    ours = RWKV6(**sizes), fitted(lambda ffn: RWKV7(**sizes, ffn=ffn), wanted)
    theirs = fitted(lambda ffn: Transformer(**sizes, heads=max(1, shape.width // 64), ffn=ffn), wanted)
    side = Contexts.of(config).side

    def joined(backbone: Backbone, connector: type[Linear] | type[MLP]) -> VLM:
        modality = Modality(PatchEmbed(patch=14, width=64, size=side), connector(64, shape.width))
        return VLM(backbone, {"image": modality}).to(config.device, DTYPES[config.precision]).eval()

    return {LLAVA: joined(theirs, MLP), RWKV_6: joined(ours[0], Linear), RWKV_7: joined(ours[1], Linear)}


def count(model: torch.nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def fitted(make: Callable[[int], Backbone], wanted: int) -> Backbone:
    """Return the backbone with that width of the feed-forward layers which comes nearest to so many parameters."""
    with torch.device("meta"):
        few, more = (count(make(ffn)) for ffn in (32, 64))
    return make(32 + round(32 * (wanted - few) / (more - few)))


@torch.no_grad()
def measure_lengths(models: Mapping[str, VLM], size: str, lengths: Contexts, config: BenchConfig) -> Iterator[Row]:
    """Read one text piece by piece, all models in turn, and time a token after each length.

    The time of a prompt is the sum of its pieces.
    """
    for model in models.values():
        model(piece(model, lengths, 0))
    states: dict[str, State | None] = dict.fromkeys(models)
    seconds = dict.fromkeys(models, 0.0)
    ends = (*lengths.shared, *lengths.long)
    for start in range(0, ends[-1], lengths.piece):
        alone = start >= lengths.shared[-1]
        reading = {name: model for name, model in models.items() if model.backbone.recurrent or not alone}
        for name, model in reading.items():
            read = Reading(model, piece(model, lengths, start), states[name])
            seconds[name] += config.time_once(read)
            states[name] = read.after
        if (context := start + lengths.piece) in ends:
            yield from prompt_rows(f"{size} {config.precision}", context, {name: seconds[name] for name in reading})
            contenders = {name: Decoding(model, states[name]) for name, model in reading.items()}
            yield from token_rows(f"{size} {config.precision}", context, contenders, config)


class Reading:
    """Workload that reads a batch behind a state.

    Attributes:
        after: the state behind the batch, once it has run.
    """

    def __init__(self, model: VLM, batch: Batch, state: State | None) -> None:
        self.model, self.batch, self.state = model, batch, state
        self.after: State | None = None

    def __call__(self) -> None:
        """Read the batch, and choose the token that follows."""
        made = self.model(self.batch, self.state)
        self.after = made.state
        self.model.head(made.hidden[:, -1]).argmax(-1)


class Decoding:
    """Workload that decodes one token after another.

    Attributes:
        model: that decodes.
        state: after the last token.
    """

    def __init__(self, model: VLM, state: State) -> None:
        self.model, self.state = model, state
        self.token = Sequence(torch.ones(1, 1, dtype=torch.long, device=next(model.parameters()).device))

    def __call__(self) -> None:
        """Decode a token."""
        hidden, self.state = self.model.run_backbone(self.token, self.state)
        self.model.head(hidden[:, -1]).argmax(-1)


def piece(model: VLM, lengths: Contexts, start: int) -> Batch:
    """Return the piece of the text that begins there; the first one begins with the image."""
    weight = next(model.parameters())
    ids = torch.ones(1, lengths.piece, dtype=torch.long, device=weight.device)
    if start:
        return Batch(Sequence(ids))
    layout = model.modalities["image"].layout(lengths.side, lengths.side)
    ids[:, 1 : 1 + layout.tokens] = SLOT
    images = torch.randn(1, 3, lengths.side, lengths.side).to(weight)
    return Batch(Sequence(ids, (ImageSpan(0, 1, layout),)), {"image": images})


def prompt_rows(size: str, context: int, seconds: Mapping[str, float]) -> Iterator[Row]:
    """Rows of the first token."""
    for name, own in seconds.items():
        ratios = {other: time / max(own, 1e-9) for other, time in seconds.items() if other != name}
        yield Row("headline", f"{size}, first token after {context:,}", name, own, ratios, context=context)


def token_rows(size: str, context: int, contenders: Mapping[str, "Decoding"], config: BenchConfig) -> Iterator[Row]:
    """Rows of a token, with the bytes of weights and of state or cache."""
    memory = {
        name: (sum(parameter.nbytes for parameter in run.model.parameters()) + run.state.nbytes) / 1e6
        for name, run in contenders.items()
    }
    fewer = replace(config, seconds=config.seconds / 10, min_rounds=min(5, config.max_rounds))
    workloads: Mapping[str, Workload] = contenders
    for row in compare("headline", f"{size}, a token after {context:,}", workloads, fewer, megabytes=memory):
        yield replace(row, memory_kind="weights and state", context=context)


def compute(presets: Mapping[str, tuple[str, ...]], lengths: Contexts) -> Iterator[Row]:
    """Rows of presets on named GPUs, by the formulas of `roofline`; an RNN alone where the context is long."""
    costs = {name: ModelCost.of(meta_model(*overrides)) for name, overrides in presets.items()}
    for gpu in NAMED:
        for context in (lengths.shared[0], lengths.shared[-1], *lengths.long):
            shown = {name: cost for name, cost in costs.items() if not cost.cached or context <= lengths.shared[-1]}
            yield from computed_rows(gpu, context, shown)


def computed_rows(gpu: str, context: int, costs: Mapping[str, ModelCost]) -> Iterator[Row]:
    """Rows of one GPU and length: the prompt, a token, and a token where a cache is copied by each."""
    sheet = GPUS[gpu]
    memory = {name: cost.memory_bytes(context) / 1e6 for name, cost in costs.items()}
    prompts = {name: cost.prompt_seconds(sheet, context) for name, cost in costs.items()}
    tokens = {name: cost.token_seconds(sheet, context) for name, cost in costs.items()}
    for name, cost in costs.items():
        if cost.cached:
            label = f"{name}, cache copied, all logits"
            tokens[label] = cost.token_seconds(sheet, context, copied=True)
            memory[label] = cost.memory_bytes(context, logits=True) / 1e6
    for what, seconds in (("first token", prompts), ("a token", tokens)):
        for name, own in seconds.items():
            ratios = {other: time / own for other, time in seconds.items() if other != name}
            case, size = f"computed: {gpu}, {what} after {context:,}", memory[name]
            yield Row("headline", case, name, own, ratios, megabytes=size, memory_kind="computed", computed=True)


def meta_model(*overrides: str) -> VLM:
    """Return the model that overrides choose, without weights."""
    with torch.device("meta"):
        return build({**plain(compose(*overrides)), "weights": {}})
