"""Contracts between the parts: every attribute and method that one part reads of another, with its default.

A class fulfils a contract by inheriting it (`class Wide(nn.Module, Connector)`), a function by
`@implements(Position, axes=2)`. Attributes without a default must be set; abstract methods must be defined, or the
constructor raises a `TypeError` that names them. The contracts of tokenizers, prompts and data sets stand in
`mmrnn.types.inputs`, that of objectives in `mmrnn.types.objective`, those of optimizers and schedules in
`mmrnn.types.training`, those of adapters and quantizers in `mmrnn.types.adapter` and `mmrnn.types.quantizer`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from collections.abc import Sequence as Several
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmrnn.types.hooks import BlockHooks
from mmrnn.types.layout import ImageSpec, Layout
from mmrnn.types.reset import Resettable
from mmrnn.types.sequence import Sequence
from mmrnn.types.state import State, StateOrigin
from mmrnn.types.traits import BackboneTraits


@runtime_checkable
class Composite(Resettable, Protocol):
    """A module that published weights can be loaded into."""

    def weight_parts(self) -> Mapping[str, nn.Module]:
        """Return the inner modules that have weight formats of their own, by path; empty: there are none."""
        return {}

    def weight_root(self) -> str:
        """Return the path of the inner module that is published in place of this one; empty: this one itself."""
        return ""


@runtime_checkable
class Encoder(Composite, Protocol):
    """Images, or inputs of another modality, to tokens.

    Attributes:
        width: `e`, size of a token.
        image: specification of the input.
        pretrained: published weights to load when a model is built; None or False: none.
    """

    width: int
    image: ImageSpec
    pretrained: bool | str | None = None

    def inner_encoders(self) -> "Several[Encoder]":
        """Return the encoders inside this one that have published weights of their own."""
        return ()

    @abstractmethod
    def layout(self, height: int, width: int) -> Layout:
        """Return the token layout of one image of `height` x `width` pixels."""

    @abstractmethod
    def __call__(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Encode images of one size."""


@runtime_checkable
class Connector(Composite, Protocol):
    """Encoder tokens to visual tokens of the backbone's width.

    Attributes:
        width: `d`, size of a visual token.
        for_cross_attention: the visual tokens fill no slots of the text; a hook attends to them.
    """

    width: int
    for_cross_attention: bool = False

    @abstractmethod
    def layout(self, layout: Layout) -> Layout:
        """Return the layout of the visual tokens, given that of the encoder tokens.

        Raises:
            ValueError: the connector cannot map tokens of that layout.
        """

    @abstractmethod
    def __call__(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Map the encoder tokens of images that have one layout."""

    def init_from(self, backbone: "Backbone") -> None:
        """Initialise parameters from those of the backbone, after `reset`; by default nothing is copied.

        Raises:
            ValueError: the backbone has other blocks than the connector.
        """


@runtime_checkable
class ModalitySpec(Protocol):
    """Input specification and visual-token layout of a modality: what a collator needs to lay out a batch.

    Attributes:
        image: specification of the input.
    """

    image: ImageSpec

    @abstractmethod
    def layout(self, height: int, width: int) -> Layout:
        """Return the layout of the visual tokens of one input of `height` x `width`."""


@runtime_checkable
class Scan(Protocol):
    """Order in which a recurrent backbone reads the patches of an image: a pure function.

    Attributes:
        reorders: some layer reads the patches in an order other than row-major.
    """

    reorders: bool = True

    @abstractmethod
    def __call__(self, layer: int, layout: Layout) -> Int[Tensor, " patches"] | None:
        """Return the permutation of the row-major patch indices for block `layer`; None: row-major."""


@runtime_checkable
class Position(Protocol):
    """Position ids of a transformer: a pure function.

    Attributes:
        axes: position ids per token.
        sequential: ids count the tokens, as the backbone does by default.
    """

    axes: int = 1
    sequential: bool = False

    @abstractmethod
    def __call__(self, sequence: Sequence, start: Tensor | None = None) -> Int[Tensor, "b t *axes"] | None:
        """Return the position ids of a sequence; None: the backbone's own.

        Args:
            start: first id of every row (`b`, or `b axes`); None: 0.
        """


@runtime_checkable
class Mask(Protocol):
    """Attention mask of a transformer: a pure function.

    Attributes:
        causal: it is the causal mask, the backbone's default.
    """

    causal: bool = False

    @abstractmethod
    def __call__(self, sequence: Sequence) -> Bool[Tensor, "b t t"] | None:
        """Return the mask (True: the query of axis 1 attends to the key of axis 2); None: causal."""


@runtime_checkable
class Backbone(Composite, Protocol):
    """Language model that reads embeddings and continues from a state.

    Attributes:
        width: `d`, size of an embedding; None: there is no language model, and connectors keep their own width.
        vocab: rows of the embedding.
        depth: number of blocks.
        recurrent: the size of its state does not depend on the number of positions read.
        causal: no position depends on a later one, so that a prompt can be read in parts; False: an encoder reads it.
        generates: it has a head, so that replies can be generated.
        hooks: what a hook may change: `layer` (input and output of a block), `attention`, `mlp`, and `mlp_norm` in
            front of it.
        axes: position ids per token; 0: neither position ids, masks nor packed rows are accepted.
        pretrained: published weights to load when a model is built; None: none.
        grad_checkpointing: every n-th block is recomputed in the backward pass; 0: none.
        state_origin: kind and sizes that its states carry; None: states are compared by their tensors alone.
    """

    width: int | None
    vocab: int
    depth: int
    recurrent: bool
    causal: bool = True
    generates: bool = True
    hooks: tuple[str, ...] = ()
    axes: int = 1
    pretrained: str | None = None
    grad_checkpointing: int = 0
    state_origin: StateOrigin | None = None

    @classmethod
    def traits(cls, knobs: Mapping[str, Any]) -> BackboneTraits:
        """Return what the knobs decide; cards in them are functions that make a part."""
        return BackboneTraits(cls.recurrent, cls.recurrent, (cls.axes,))

    @abstractmethod
    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed token ids."""

    @abstractmethod
    def __call__(
        self,
        sequence: Sequence,
        state: State | None = None,
        scan: Scan | None = None,
        hook: BlockHooks | None = None,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Run the blocks over `sequence.embeds`, continuing from `state`, which is not modified.

        Returns:
            Hidden states after the last norm, and the state after the last position.
        """

    @abstractmethod
    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Compute the logits of hidden states."""

    @abstractmethod
    def state(self, batch: int) -> State:
        """Return the initial state of `batch` rows."""

    def resume(self, state: State | None, rows: int) -> State:
        """Return `state`, or without one the initial state of `rows` rows.

        Raises:
            ValueError: the state has another number of rows, or belongs to another backbone.
        """
        if state is None:
            return self.state(rows)
        if state.origin is None or state.origin is not self.state_origin:
            state.check(self.state_origin, self.state(0))
        if state.rows != rows:
            raise ValueError(f"the state has {state.rows} rows for {rows}; `State.select` chooses and repeats rows")
        return state

    def hook_target(self, layer: int, name: str) -> nn.Module:
        """Return the module of block `layer` that `hooks` calls `name` (`attention` or `mlp`).

        Raises:
            ValueError: hooks may not change it.
        """
        raise ValueError(f"{type(self).__name__} has no {name!r} that a hook could change")


@runtime_checkable
class Hook(Resettable, Protocol):
    """Trainable addition to the blocks of a backbone.

    Attributes:
        needs: what it changes, a subset of the backbone's `hooks`.
        needs_cross_attention_tokens: it attends to visual tokens that fill no slots of the text.
        looks_ahead: it reads the token type of the next position, so that adjoining images must not be read apart.
    """

    needs: tuple[str, ...] = ("layer",)
    needs_cross_attention_tokens: bool = False
    looks_ahead: bool = False

    @abstractmethod
    def start(self, sequence: Sequence, state: State | None) -> BlockHooks:
        """Return the callbacks of one forward pass over `sequence`, continuing from `state`."""

    def init_from(self, backbone: Backbone) -> None:
        """Initialise parameters from those of the backbone, after `reset`; by default nothing is copied."""
