"""Second weights for the tokens of images (CogVLM's visual expert, arXiv 2311.03079)."""

from copy import deepcopy

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from mmrnn.backbones.hook import HookModule
from mmrnn.types import Backbone, BlockHooks, Expert, Sequence, State


def expert_mask(visual: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
    """True at a visual token that another one follows: the one that ends an image goes with the text, as published."""
    return visual & torch.cat([visual[:, 1:], torch.zeros_like(visual[:, :1])], dim=1)


class ExpertHooks(BlockHooks):
    """The experts of every layer for the images of one sequence."""

    def __init__(self, layers: nn.ModuleList, where: Bool[Tensor, "b t"]):
        self.layers, self.where = layers, where

    def expert(self, layer: int) -> Expert | None:
        parts = self.layers[layer]
        own = dict(parts.items())
        return Expert(self.where, own.get("attention"), own.get("mlp"))


class MLPExpert(HookModule):
    """A second MLP (channel mix) in every block for the tokens of images. It starts as a copy of the first.

    The one kind of visual expert that an RNN can have: what its time mix knows of a token is in the state already.
    """

    needs = ("mlp",)

    def __init__(self, backbone: Backbone, media: int | None = None):
        super().__init__(backbone)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: deepcopy(backbone.hook_target(layer, name)) for name in self.needs})
            for layer in range(backbone.depth)
        )

    def init_from(self, backbone: Backbone) -> None:
        for layer, parts in enumerate(self.layers):
            for name, part in parts.items():
                part.load_state_dict(backbone.hook_target(layer, name).state_dict())

    def start(self, sequence: Sequence, state: State | None) -> BlockHooks:
        # After the images there is only text, which takes the weights of the backbone.
        return ExpertHooks(self.layers, expert_mask(sequence.visual)) if sequence.image_spans else BlockHooks()


class VisualExpert(MLPExpert):
    """Second projections in the attention, and a second MLP, in every block for the tokens of images.

    All tokens attend to each other in one softmax. Norms are shared.
    """

    needs = ("attention", "mlp")
