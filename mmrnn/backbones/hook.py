"""What a design adds to the blocks of a backbone without changing it: chosen by the group `hook`."""

from torch import nn

from mmrnn.types import Backbone, Pass, Sequence, State


class Hook(nn.Module):
    """Base of the hooks. `begin` is asked once for every sequence, and answers with what is done to it on its way.

    Attributes:
        needs: what the backbone must let be changed (its `hooks`): `layer`, `attention`, `mlp`.
        reads_beside: reads tokens that stand beside the text.
    """

    needs: tuple[str, ...] = ("layer",)
    reads_beside = False

    def __init__(self, backbone: Backbone):
        super().__init__()
        kind, offered = type(backbone).__name__, getattr(backbone, "hooks", ())
        if lacking := [need for need in self.needs if need not in offered]:
            raise ValueError(f"{type(self).__name__} changes the {lacking[0]} of a block, which {kind} does not let it")

    def begin(self, sequence: Sequence, state: State | None) -> Pass:
        raise NotImplementedError

    def adopt(self, backbone: Backbone) -> None:
        """Start from the weights that the backbone has now, where the hook wants to."""
