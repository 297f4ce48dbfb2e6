"""Base of the hooks: additions to the blocks of a backbone, chosen by the group `hook`."""

from torch import nn

from mmrnn.types import Backbone, Hook


class HookModule(nn.Module, Hook):
    """Base class of hooks with parameters.

    Raises:
        ValueError: `hooks` of the backbone lacks something that the hook `needs`.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        if missing := [need for need in self.needs if need not in backbone.hooks]:
            raise ValueError(
                f"{type(self).__name__} changes the {missing[0]} of a block, which {type(backbone).__name__} does not "
                f"allow; its hooks: {', '.join(backbone.hooks) or 'none'}"
            )
