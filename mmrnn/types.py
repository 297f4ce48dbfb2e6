"""The contracts between the parts, and the data that travels between them.

Letters: `b` samples, `m` pictures of the batch, `t` positions, `n` encoder tokens, `v` visual tokens,
`e` encoder width, `d` backbone width, `h` heads, `k` key size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

SLOT = -200
"""The id of a position that a visual token will fill (the placeholder id of VisualRWKV and LLaVA)."""

IGNORE = -100
"""The label of a position without a target."""


@dataclass(frozen=True)
class ImageSpec:
    """What has to be done to a picture before an encoder reads it.

    `resize`: `squash` scales both sides, `crop` scales the short side and cuts the middle out,
    `pad` fills up to a square with the mean colour first. Two keep the shape of every picture: `fit` scales the long
    side to that of `size` and rounds the short side up to a multiple of `multiple` (EVE); `within` shrinks only what
    is larger than `size`, and fills up with black to multiples (Fuyu). `none` is for what is no picture.
    """

    size: tuple[int, int]  # height, width
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resize: Literal["squash", "crop", "pad", "fit", "within", "none"] = "squash"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    multiple: int = 1

    @property
    def ragged(self) -> bool:
        """Whether pictures come out in different sizes."""
        return self.resize in ("fit", "within")


@dataclass(frozen=True)
class Layout:
    """How the tokens of one picture lie: prefix, a grid of patches row by row (each row may be closed by
    separators), suffix. Learned queries have no place in the picture: they are prefix, the grid is empty. Tokens
    `beside` the text fill none of its slots: cross-attention reads them."""

    rows: int = 0
    cols: int = 0
    prefix: int = 0
    suffix: int = 0
    separators: int = 0
    beside: int = 0

    @property
    def tokens(self) -> int:
        return self.prefix + self.rows * (self.cols + self.separators) + self.suffix

    def patches(self) -> Int[Tensor, " patches"]:
        """Index of every patch among the tokens, row-major."""
        row = torch.arange(self.rows)[:, None] * (self.cols + self.separators)
        return (self.prefix + row + torch.arange(self.cols)).flatten()


@dataclass(frozen=True)
class Block:
    """The place of one picture: `layout.tokens` slots of row `sample` from position `start` on."""

    sample: int
    start: int
    layout: Layout
    sense: str = "image"

    @property
    def stop(self) -> int:
        return self.start + self.layout.tokens


@dataclass(frozen=True)
class Sequence:
    """A batch of rows on its way through a backbone, with every fact that a part on the way may ask for.

    `segments` tells which sample a position belongs to where a row holds several of them (packing) or starts
    with padding; a backbone starts anew at each change. `positions` are the position ids for backbones that
    want them (several axes for some); None counts from the start of the segment. `visible` tells which positions of
    this sequence each may see; None: those before it and itself. `media` are the tokens beside the text, one row
    for every block without slots.
    """

    ids: Int[Tensor, "b t"]
    blocks: tuple[Block, ...] = ()
    embeds: Float[Tensor, "b t d"] | None = None
    labels: Int[Tensor, "b t"] | None = None
    segments: Int[Tensor, "b t"] | None = None
    positions: Int[Tensor, "b t *axes"] | None = None
    visible: Bool[Tensor, "b t t"] | None = None
    media: Float[Tensor, "m v e"] | None = None

    @property
    def visual(self) -> Tensor:
        """True where a visual token stands, `b t`."""
        return self.ids == SLOT

    def slice(self, start: int, stop: int) -> "Sequence":
        """The positions `start:stop` of every row.

        Raises:
            ValueError: a picture would be cut in two (a scan needs the whole of it).
        """
        blocks, media, beside = [], [], -1
        for block in self.blocks:
            beside += bool(block.layout.beside)
            if block.start >= start and block.stop <= stop and block.start < stop:
                blocks.append(replace(block, start=block.start - start))
                media += [beside] if block.layout.beside else []
            elif block.start < stop and block.stop > start:
                raise ValueError(
                    f"the cut {start}:{stop} splits the picture at {block.start}:{block.stop} of row {block.sample}; "
                    "cut before or after it"
                )
        fields = ("ids", "embeds", "labels", "segments", "positions")
        parts = {name: value[:, start:stop] for name in fields if (value := getattr(self, name)) is not None}
        if self.visible is not None:
            parts["visible"] = self.visible[:, start:stop, start:stop]
        if self.media is not None:
            parts["media"] = self.media[media]
        return replace(self, blocks=tuple(blocks), **parts)

    def to(self, device: torch.device | str) -> "Sequence":
        fields = ("ids", "embeds", "labels", "segments", "positions", "visible", "media")
        return replace(
            self, **{name: value.to(device) for name in fields if (value := getattr(self, name)) is not None}
        )


@dataclass(frozen=True)
class State:
    """All that a backbone remembers of what it has read: shifts and WKV matrices, or keys and values.

    Every tensor has the sample axis first. A backbone answers with a new state and leaves the old one as it is,
    so a state can be kept and continued from several times.
    """

    layers: tuple[dict[str, Tensor], ...]
    shared: dict[str, Tensor] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> "State":
        layers = tuple({name: change(value) for name, value in layer.items()} for layer in self.layers)
        return State(layers, {name: change(value) for name, value in self.shared.items()})

    def clone(self) -> "State":
        return self.map(Tensor.clone)

    def detach(self) -> "State":
        return self.map(Tensor.detach)

    def to(self, device: torch.device | str) -> "State":
        return self.map(lambda value: value.to(device))

    def select(self, rows: Int[Tensor, " rows"]) -> "State":
        """The state of some rows, in that order; a row may be asked for more than once."""
        return self.map(lambda value: value[rows])

    @property
    def nbytes(self) -> int:
        tensors = [*self.shared.values(), *(value for layer in self.layers for value in layer.values())]
        return sum(value.nbytes for value in tensors)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file."""
        from safetensors.torch import save_file

        named = {f"shared.{name}": value for name, value in self.shared.items()}
        for index, layer in enumerate(self.layers):
            named |= {f"layers.{index}.{name}": value for name, value in layer.items()}
        save_file({name: value.contiguous() for name, value in named.items()}, str(path))

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> "State":
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        shared, layers = {}, {}
        for key, value in load_file(str(path), device=device).items():
            kind, _, name = key.partition(".")
            if kind == "shared":
                shared[name] = value
            else:
                index, _, name = name.partition(".")
                layers.setdefault(int(index), {})[name] = value
        return cls(tuple(layers[index] for index in sorted(layers)), shared)


Scan = Callable[[int, Layout], Tensor | None]
"""`scan(layer, layout)`: in which order that layer reads the patches of a picture (a permutation of its row-major
patch numbers), or None for the order they are in."""


@runtime_checkable
class Encoder(Protocol):
    """Pictures to tokens. `width` is `e`; `image` says what a picture must look like."""

    width: int
    image: ImageSpec

    def layout(self, height: int, width: int) -> Layout:
        """How the tokens of a picture of so many pixels lie."""
        ...

    def __call__(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]: ...


@runtime_checkable
class Connector(Protocol):
    """Encoder tokens to visual tokens of the backbone's width. `width` is `d`."""

    width: int

    def layout(self, layout: Layout) -> Layout:
        """How the visual tokens lie, given how the encoder's lie."""
        ...

    def __call__(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]: ...


@runtime_checkable
class Backbone(Protocol):
    """A language model that reads embeddings and can go on from a state."""

    width: int
    vocab: int
    recurrent: bool

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]: ...

    def __call__(
        self, sequence: Sequence, state: State | None = None, scan: Scan | None = None, hook: "Pass | None" = None
    ) -> tuple[Float[Tensor, "b t d"], State]: ...

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]: ...

    def state(self, batch: int) -> State:
        """The state before anything was read."""
        ...


@dataclass(frozen=True)
class Expert:
    """Second weights for the parts of a block, and the positions that take them. None: that part has no second."""

    where: Bool[Tensor, "b t"]
    attention: nn.Module | None = None
    mlp: nn.Module | None = None


class Pass:
    """What a hook adds while a backbone reads one sequence; this one adds nothing.

    `memory` is kept in the state for what is read next.
    """

    @property
    def memory(self) -> dict[str, Tensor]:
        return {}

    def before(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:  # noqa: ARG002
        """What block `layer` is given."""
        return x

    def after(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:  # noqa: ARG002
        """What is made of the answer of block `layer`."""
        return x

    def expert(self, layer: int) -> Expert | None:  # noqa: ARG002
        """Second weights for block `layer`."""
        return None


Position = Callable[[Sequence, Tensor | None], Tensor | None]
"""`position(sequence, start)`: the position ids of a sequence whose first one is `start` (None: zero), or None where
the backbone may count by itself."""

Mask = Callable[[Sequence], Tensor | None]
"""`mask(sequence)`: which positions of the sequence each of them may see (`b t t`), or None: those before it."""


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. `vocab` ids are possible; `pad` fills rows up; a reply ends at one of `ends`."""

    vocab: int
    pad: int
    ends: tuple[int, ...]

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


@dataclass(frozen=True)
class Batch:
    """What a model reads at once: the sequence and, for each sense, its pictures or their cached features.

    The m pictures of a sense stand in the order of its blocks. Pictures of several sizes come as a tuple.
    """

    sequence: Sequence
    images: Mapping[str, Tensor | tuple[Tensor, ...]] = field(default_factory=dict)  # sense -> m c H W
    features: Mapping[str, Tensor] = field(default_factory=dict)  # sense -> m n e

    def to(self, device: torch.device | str) -> "Batch":
        images = {name: _to(value, device) for name, value in self.images.items()}
        features = {name: value.to(device) for name, value in self.features.items()}
        return Batch(self.sequence.to(device), images, features)


def _to(value: Tensor | tuple[Tensor, ...], device: torch.device | str) -> Tensor | tuple[Tensor, ...]:
    return value.to(device) if isinstance(value, Tensor) else tuple(item.to(device) for item in value)
