"""Sizes of a configuration compared with the tensors beside it, before any memory is taken for them."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from mmrnn.config.error import ConfigError
from mmrnn.config.skip_init import SkipInit
from mmrnn.config.tree import walk
from mmrnn.model.build import build
from mmrnn.model.objective import attach_embedder
from mmrnn.model.parameter_names import part_of

STACKED = ".start"
"""End of the name of a tensor whose first axis is the layers of a backbone."""

ALWAYS = 4096
"""Numbers up to here are accepted from any file: sizes of images, heads, ranks."""

AREA = 2**26
"""Pixels up to here, in knobs that end in `_pixels`, are accepted from any file: 8192 x 8192."""


def check_numbers(cfg: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Compare the numbers in the cards of the parts with the number of tensors and their longest axis.

    Parts without tensors are left out: their base is checked when it is loaded.

    Raises:
        ConfigError: the configuration makes a part deeper than it has tensors, or wider than any axis.
    """
    for part in ("backbone", "encoder", "connector", "hook"):
        named = {name: value for name, value in tensors.items() if part_of(name) == part}
        own = [*named.values()]
        # The start states of all layers are one tensor.
        deepest = max([len(own), *(value.shape[0] for name, value in named.items() if name.endswith(STACKED))])
        longest = max([ALWAYS, len(own), *(size for value in own for size in value.shape)])
        for path, value in walk(cfg.get(part), part) if own else ():
            limit = deepest if path.endswith((".depth", "layers")) else longest
            if type(value) is int and path.endswith("_pixels"):
                if value > AREA:
                    raise ConfigError(f"{path}: {value} must be at most {AREA} in a checkpoint")
            elif type(value) is int and value > limit:
                raise ConfigError(
                    f"{path}: {value} does not fit the weights beside the configuration: they have {len(own)} tensors "
                    f"of {part}, and no axis longer than {longest}"
                )


def check_shapes(cfg: Mapping[str, Any], tensors: Mapping[str, Tensor], trusted: Collection[str] = ()) -> None:
    """Build on the meta device, and compare the size of every tensor with that in the file.

    Raises:
        ConfigError: the configuration does not fit, or asks for more numbers than its tensors have.
    """
    with torch.device("meta"), SkipInit():
        planned = build({**cfg, "weights": {}}, trusted=trusted)
        attach_embedder(planned, tensors, trusted)
    for name, value in planned.state_dict().items():
        if name in tensors and value.numel() > tensors[name].numel():
            raise ConfigError(
                f"{name} has the shape {tuple(value.shape)} by the configuration, but {tuple(tensors[name].shape)} in "
                "the weights beside it; take the configuration of these weights"
            )
