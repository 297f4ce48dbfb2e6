"""Contracts between the parts.

Everything that one part reads of another stands here with its default. A class fulfils a contract by inheriting it:
`class Wide(nn.Module, Connector)`. What has no default must be set or defined; constructing a class that lacks a
method fails with the name of the method.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmrnn.types.layout import ImageSpec, Layout
from mmrnn.types.output import Output
from mmrnn.types.sample import ImageSource, Sample, Turn
from mmrnn.types.sequence import Batch, Sequence
from mmrnn.types.span import Span
from mmrnn.types.state import State


def fulfils(target: Any, contract: type) -> bool:
    """True for a class that inherits the contract, and for a function that `implements` it."""
    return contract in getattr(target, "__mro__", ()) or getattr(target, "contract", None) is contract


@runtime_checkable
class Composite(Protocol):
    """Anything that published weights can be loaded into."""

    def weight_parts(self) -> Mapping[str, nn.Module]:
        """Inner modules that have weight formats of their own, by the path of each; empty: none has."""
        return {}

    def weight_root(self) -> str:
        """Path of the one part that this module is published as; empty: it is published as itself."""
        return ""


@runtime_checkable
class Encoder(Composite, Protocol):
    """Images (or other inputs) to tokens.

    Attributes:
        width: `e`, of a token.
        image: required form of the input.
        pretrained: published weights to load when a model is built; None: none.
    """

    width: int
    image: ImageSpec
    pretrained: bool | str | None = None

    def inner_encoders(self) -> "Several[Encoder]":
        """Encoders inside it, each with published weights of its own."""
        return ()

    @abstractmethod
    def layout(self, height: int, width: int) -> Layout:
        """Layout of the tokens of one image of that size in pixels."""
        ...

    @abstractmethod
    def __call__(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Encode a batch of images of one size."""
        ...


@runtime_checkable
class Connector(Composite, Protocol):
    """Encoder tokens to visual tokens of the backbone's width.

    Attributes:
        width: `d`, of a visual token.
        for_cross_attention: the tokens fill no slots of the text; a hook attends to them.
    """

    width: int
    for_cross_attention: bool = False

    @abstractmethod
    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens, given that of the encoder tokens.

        Raises:
            ValueError: the connector has no place for tokens of that layout.
        """
        ...

    @abstractmethod
    def __call__(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Connect the tokens of a batch of images of one layout."""
        ...


@dataclass(frozen=True)
class Expert:
    """Expert weights of a block and the mask of positions routed to them. None: that part has no expert."""

    where: Bool[Tensor, "b t"]
    attention: nn.Module | None = None
    mlp: nn.Module | None = None


class BlockHooks:
    """Additions of a hook to the blocks of a backbone during one forward pass; this base class adds nothing."""

    @property
    def state(self) -> dict[str, Tensor]:
        """Tensors to keep in the state for the next call."""
        return {}

    def before(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Change the input of block `layer`."""
        return x

    def after(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Change the output of block `layer`."""
        return x

    def expert(self, layer: int) -> Expert | None:
        """Expert weights of block `layer`."""
        return None


@runtime_checkable
class Scan(Protocol):
    """Order in which a recurrent backbone reads the patches of an image: a pure function.

    Facts: `reorders` (True), some layer reads the patches in another order than row by row.
    """

    @abstractmethod
    def __call__(self, layer: int, layout: Layout) -> Int[Tensor, " patches"] | None:
        """Permutation of the row-major patch indices for block `layer`; None: row by row."""
        ...


@runtime_checkable
class Position(Protocol):
    """Position ids of a transformer: a pure function.

    Facts: `axes` (1), ids per token; `sequential` (False), the backbone may count by itself.
    """

    @abstractmethod
    def __call__(self, sequence: Sequence, start: Tensor | None = None) -> Int[Tensor, "b t *axes"] | None:
        """Position ids of a sequence whose first id is `start` (None: zero); None: the backbone counts by itself."""
        ...


@runtime_checkable
class Mask(Protocol):
    """Attention mask of a transformer: a pure function.

    Facts: `causal` (False), it is the backbone's own mask.
    """

    @abstractmethod
    def __call__(self, sequence: Sequence) -> Bool[Tensor, "b t t"] | None:
        """Keys (last axis) that each position attends to; None: causal."""
        ...


FACTS: Mapping[type, Mapping[str, Any]] = {
    Scan: {"reorders": True},
    Position: {"axes": 1, "sequential": False},
    Mask: {"causal": False},
}
"""Attributes, with their defaults, of functions that fulfil a contract."""

F = TypeVar("F", bound=Callable[..., Any])


def implements(contract: type, **facts: Any) -> Callable[[F], F]:
    """Give a function the facts of a contract, defaults included: `@implements(Position, axes=2)`.

    A function cannot inherit; this is its way to fulfil a contract.

    Raises:
        TypeError: the contract has no such fact.
    """
    if unknown := facts.keys() - FACTS[contract].keys():
        raise TypeError(f"{contract.__name__} has no fact {', '.join(sorted(unknown))}")

    def attach(function: F) -> F:
        vars(function).update({"contract": contract, **FACTS[contract], **facts})
        return function

    return attach


@runtime_checkable
class Backbone(Composite, Protocol):
    """A language model that reads embeddings and can continue from a state.

    Attributes:
        width: `d`; None where there is no language model, and connectors keep the width that they have.
        vocab: rows of the embedding.
        depth: number of blocks.
        recurrent: its state has one size, however much was read.
        generates: it has a head, and answers can be generated.
        hooks: what a hook may change: `layer`, `attention`, `mlp`.
        axes: position ids per token; 0: it takes neither position ids nor masks, nor packed rows.
        pretrained: published weights to load when a model is built; None: none.
    """

    width: int | None
    vocab: int
    depth: int
    recurrent: bool
    generates: bool = True
    hooks: tuple[str, ...] = ()
    axes: int = 1
    pretrained: str | None = None

    @abstractmethod
    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed token ids."""
        ...

    @abstractmethod
    def __call__(
        self,
        sequence: Sequence,
        state: State | None = None,
        scan: Scan | None = None,
        hook: BlockHooks | None = None,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Read a sequence, from `state` on; the state that was passed stays as it is."""
        ...

    @abstractmethod
    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Logits of hidden states."""
        ...

    @abstractmethod
    def state(self, batch: int) -> State:
        """Initial state of `batch` rows."""
        ...

    def hook_target(self, layer: int, name: str) -> nn.Module:
        """The module of block `layer` that is called `name` in `hooks` (`attention`, `mlp`).

        Raises:
            ValueError: the backbone lets no hook change it.
        """
        raise ValueError(f"{type(self).__name__} has no {name!r} that a hook could change")


@runtime_checkable
class Hook(Protocol):
    """Addition to the blocks of a backbone.

    Attributes:
        needs: what the backbone must allow to be changed (its `hooks`).
        needs_cross_attention_tokens: it reads tokens that fill no slots of the text.
    """

    needs: tuple[str, ...] = ("layer",)
    needs_cross_attention_tokens: bool = False

    @abstractmethod
    def start(self, sequence: Sequence, state: State | None) -> BlockHooks:
        """Begin a forward pass over `sequence`."""
        ...

    def init_from(self, backbone: Backbone) -> None:
        """Initialise from the weights of the backbone; most hooks have nothing to take from there."""


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back.

    Attributes:
        vocab: number of possible ids; None on a class that learns it from its file.
        pad: id that fills rows up.
        ends: ids that end a reply.
        starts: ids that every text begins with (BOS).
    """

    vocab: int | None = None
    pad: int
    ends: tuple[int, ...]
    starts: tuple[int, ...] = ()

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `starts`."""
        ...

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """Text of ids."""
        ...


@runtime_checkable
class Prompt(Protocol):
    """Format of a dialogue.

    Attributes:
        stops: strings that end a reply.
    """

    stops: tuple[str, ...] = ()

    @abstractmethod
    def spans(self, turns: Several[Turn], images: int) -> list[Span]:
        """Spans of a dialogue about `images` images, without the reply to an empty last turn.

        Raises:
            ValueError: tags and images do not agree, or this prompt cannot format the turns.
        """
        ...


@runtime_checkable
class MapDataset(Protocol):
    """Samples by index.

    `images` and `held_out` are optional: without them no features are cached and nothing is evaluated.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def images(self) -> Iterator[ImageSource]:
        """Every image once, so that features can be computed ahead."""
        return iter(())

    def held_out(self, samples: int) -> "dict[str, MapDataset]":
        """About `samples` samples of each split that is not trained on; empty: nothing is held out."""
        return {}


@runtime_checkable
class StreamDataset(Protocol):
    """Samples in the order of a stream that has no length."""

    @abstractmethod
    def __iter__(self) -> Iterator[Sample]: ...

    def held_out(self, samples: int) -> dict[str, MapDataset]:
        """About `samples` samples of each split that is not trained on; empty: nothing is held out."""
        return {}


@runtime_checkable
class Objective(Protocol):
    """Loss of a batch. One with parameters is an `nn.Module`, and its constructor takes the model.

    Attributes:
        needs_backbone: the backbone reads the batch first.
        needs_hidden_states: the inputs of all blocks are kept for it.
    """

    needs_backbone: bool = True
    needs_hidden_states: bool = False

    @abstractmethod
    def __call__(self, model: Any, output: Output) -> Float[Tensor, ""]:
        """Mean loss over the units of the batch."""
        ...

    def num_units(self, batch: Batch) -> int:
        """Units that the loss is the mean over; by default rows."""
        return len(batch.sequence.ids)

    def terms(self) -> "list[tuple[float, Objective]]":
        """Weighted losses of which this one is the sum, each a mean over units of its own."""
        return [(1.0, self)]


@runtime_checkable
class Optimizer(Protocol):
    """Update rule. Its constructor takes parameter groups and a learning rate; the other arguments are knobs.

    Attributes:
        param_groups: besides what torch keeps in it, each group says the factor of its learning rate (`lr_mult`), true
            for weights of linear layers between features (`hidden`), and true for what weight decay applies to
            (`decays`).
        weight_decay: at the first step.
        weight_decay_final: at the last step; None: constant.
    """

    param_groups: list[dict[str, Any]]
    weight_decay: float
    weight_decay_final: float | None = None

    @abstractmethod
    def step(self) -> Any:
        """Update the parameters from their gradients."""
        ...

    @abstractmethod
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients."""
        ...

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Moments and settings, for a snapshot."""
        ...

    @abstractmethod
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
        ...


OptimizerFactory = Callable[[list[dict[str, Any]], float], Optimizer]
"""An optimizer card: parameter groups and learning rate to an optimizer."""


@runtime_checkable
class Schedule(Protocol):
    """Learning rate over the steps of a stage.

    Attributes:
        warmup: steps of growth before the decay.
    """

    warmup: int = 0

    @abstractmethod
    def lr_at(self, step: int, *, steps: int, lr: float) -> float:
        """Learning rate of step `step` (from 0) of `steps`, of which `lr` is the highest."""
        ...
