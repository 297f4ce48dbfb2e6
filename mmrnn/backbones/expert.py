"""Second weights for the tokens of pictures (CogVLM's visual expert, arXiv 2311.03079)."""

from copy import deepcopy

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from mmrnn.backbones.hook import Hook
from mmrnn.types import Backbone, Expert, Pass, Sequence, State


def expert_mask(visual: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
    """True at a visual token that another one follows: the one that ends a picture goes with the text, as published."""
    return visual & torch.cat([visual[:, 1:], torch.zeros_like(visual[:, :1])], dim=1)


class Routed(Pass):
    """The experts of every layer for the pictures of one sequence."""

    def __init__(self, layers: nn.ModuleList, where: Bool[Tensor, "b t"]):
        self.layers, self.where = layers, where

    def expert(self, layer: int) -> Expert | None:
        parts = self.layers[layer]
        own = dict(parts.items())
        return Expert(self.where, own.get("attention"), own.get("mlp"))


class MLPExpert(Hook):
    """A second MLP (channel mix) in every block for the tokens of pictures. It starts as a copy of the first.

    The one kind of visual expert that an RNN can have: what its time mix knows of a token is in the state already.
    """

    needs = ("mlp",)

    def __init__(self, backbone: Backbone, media: int | None = None):  # noqa: ARG002
        super().__init__(backbone)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: deepcopy(_part(block, name)) for name in self.needs}) for block in backbone.blocks
        )

    def adopt(self, backbone: Backbone) -> None:
        for parts, block in zip(self.layers, backbone.blocks, strict=True):
            for name, part in parts.items():
                part.load_state_dict(_part(block, name).state_dict())

    def begin(self, sequence: Sequence, state: State | None) -> Pass:  # noqa: ARG002
        # After the pictures there is only text, which takes the weights of the backbone.
        return Routed(self.layers, expert_mask(sequence.visual)) if sequence.blocks else Pass()


class VisualExpert(MLPExpert):
    """Second projections in the attention, and a second MLP, in every block for the tokens of pictures.

    All tokens attend to each other in one softmax. Norms are shared.
    """

    needs = ("attention", "mlp")


def _part(block: nn.Module, name: str) -> nn.Module:
    return block.channel_mix if name == "mlp" and hasattr(block, "channel_mix") else getattr(block, name)
