"""Visual experts: separate weights for the tokens of images (CogVLM, arXiv 2311.03079)."""

from copy import deepcopy

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from mmrnn.backbones.hook import HookModule
from mmrnn.types import Backbone, BlockHooks, Expert, Routing, Sequence, State


def expert_mask(visual: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
    """Return True at visual tokens that another visual token follows; as published, the last one counts as text."""
    return visual & torch.cat([visual[:, 1:], torch.zeros_like(visual[:, :1])], dim=1)


class ExpertHooks(BlockHooks):
    """Expert weights of every block, and the positions routed to them, for one sequence."""

    def __init__(self, layers: nn.ModuleList, where: Bool[Tensor, "b t"]):
        self.layers, self.routing = layers, Routing.of(where)

    def expert(self, layer: int) -> Expert | None:
        """Return the expert weights of block `layer`."""
        parts = dict(self.layers[layer].items())
        return Expert(self.routing, parts.get("attention"), parts.get("mlp"))


class MLPExpert(HookModule):
    """Expert MLP (channel mix) in every block for the tokens of images, initialised as a copy of the block's.

    RNNs can have this expert only: the state of a time mix is shared by all positions.
    """

    needs = ("mlp",)
    looks_ahead = True

    def __init__(self, backbone: Backbone, media_width: int | None = None):
        super().__init__(backbone)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: deepcopy(backbone.hook_target(layer, name)) for name in self.needs})
            for layer in range(backbone.depth)
        )

    def reset(self) -> None:
        """Leave all parameters to `init_from`: they are copies of those of the backbone."""

    def init_from(self, backbone: Backbone) -> None:
        """Copy the weights of the backbone."""
        for layer, parts in enumerate(self.layers):
            for name, part in parts.items():
                source = backbone.hook_target(layer, name)
                # Copied from a backbone that was built without memory, and has got its weights since.
                if any(parameter.is_meta for parameter in part.parameters()):
                    part.to_empty(device=next(source.parameters()).device)
                part.load_state_dict(source.state_dict())

    def start(self, sequence: Sequence, state: State | None) -> BlockHooks:
        """Route the visual tokens of `sequence` to the experts."""
        return ExpertHooks(self.layers, expert_mask(sequence.visual)) if sequence.image_spans else BlockHooks()


class VisualExpert(MLPExpert):
    """CogVLM's visual expert: own attention projections and MLP in every block for the tokens of images.

    arXiv 2311.03079. All tokens attend to each other in one softmax; norms are shared.
    """

    needs = ("attention", "mlp")
