"""The contracts between the parts, and the data that travels between them.

Letters: `b` samples, `m` pictures of the batch, `t` positions, `n` encoder tokens, `v` visual tokens,
`e` encoder width, `d` backbone width, `h` heads, `k` key size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

SLOT = -200
"""The id of a position that a visual token will fill (the placeholder id of VisualRWKV and LLaVA)."""

IGNORE = -100
"""The label of a position without a target."""


@dataclass(frozen=True)
class ImageSpec:
    """What has to be done to a picture before an encoder reads it.

    `resize`: `squash` scales both sides, `crop` scales the short side and cuts the middle out,
    `pad` fills up to a square with the mean colour first.
    """

    size: tuple[int, int]  # height, width
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resize: Literal["squash", "crop", "pad"] = "squash"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"


@dataclass(frozen=True)
class Layout:
    """How the tokens of one picture lie: prefix, a grid of patches row by row (each row may be closed by
    separators), suffix. Learned queries have no place in the picture: they are prefix, the grid is empty."""

    rows: int = 0
    cols: int = 0
    prefix: int = 0
    suffix: int = 0
    separators: int = 0

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
    want them; None counts from the start of the segment.
    """

    ids: Int[Tensor, "b t"]
    blocks: tuple[Block, ...] = ()
    embeds: Float[Tensor, "b t d"] | None = None
    labels: Int[Tensor, "b t"] | None = None
    segments: Int[Tensor, "b t"] | None = None
    positions: Int[Tensor, "b t"] | None = None

    @property
    def visual(self) -> Tensor:
        """True where a visual token stands, `b t`."""
        return self.ids == SLOT

    def slice(self, start: int, stop: int) -> "Sequence":
        """The positions `start:stop` of every row.

        Raises:
            ValueError: a picture would be cut in two (a scan needs the whole of it).
        """
        blocks = []
        for block in self.blocks:
            if block.start >= start and block.stop <= stop:
                blocks.append(replace(block, start=block.start - start))
            elif block.start < stop and block.stop > start:
                raise ValueError(
                    f"the cut {start}:{stop} splits the picture at {block.start}:{block.stop} of row {block.sample}; "
                    "cut before or after it"
                )
        fields = ("ids", "embeds", "labels", "segments", "positions")
        parts = {name: value[:, start:stop] for name in fields if (value := getattr(self, name)) is not None}
        return replace(self, blocks=tuple(blocks), **parts)

    def to(self, device: torch.device | str) -> "Sequence":
        fields = ("ids", "embeds", "labels", "segments", "positions")
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
        self, sequence: Sequence, state: State | None = None, scan: Scan | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]: ...

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]: ...

    def state(self, batch: int) -> State:
        """The state before anything was read."""
        ...


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

    The m pictures of a sense stand in the order of its blocks.
    """

    sequence: Sequence
    images: Mapping[str, Tensor] = field(default_factory=dict)  # sense -> m c H W
    features: Mapping[str, Tensor] = field(default_factory=dict)  # sense -> m n e

    def to(self, device: torch.device | str) -> "Batch":
        images = {name: value.to(device) for name, value in self.images.items()}
        features = {name: value.to(device) for name, value in self.features.items()}
        return Batch(self.sequence.to(device), images, features)
