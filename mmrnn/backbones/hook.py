"""Base of the hooks: additions of a design to the blocks of a backbone, chosen by the group `hook`."""

from torch import nn

from mmrnn.types import Backbone, Hook


class HookModule(nn.Module, Hook):
    """A hook with parameters, made for a backbone.

    Raises:
        ValueError: the backbone does not let it change what it `needs`.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        if lacking := [need for need in self.needs if need not in backbone.hooks]:
            kind = type(backbone).__name__
            raise ValueError(f"{type(self).__name__} changes the {lacking[0]} of a block, which {kind} does not let it")
