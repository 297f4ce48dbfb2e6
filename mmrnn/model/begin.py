"""Parts of a model that begin as copies of its backbone."""

from collections.abc import Callable, Iterator
from functools import partial

from mmrnn.config.tree import modalities
from mmrnn.model.assemble import named_weights, prefix_errors
from mmrnn.model.vlm import VLM
from mmrnn.types import Connector


def copies_of_backbone(model: VLM) -> Iterator[Callable[[], None]]:
    """Yield functions that fill hook and connectors from the backbone, where no file that `weights` names brings them.

    Each raises a `ConfigError` where the backbone has not the blocks that are to be copied.
    """
    named = set(named_weights(model.config))
    if "model" in named:
        return
    if model.hook is not None and "hook" not in named:
        yield partial(model.hook.init_from, model.backbone)
    for name, path, _ in modalities(model.config):
        if f"{path}connector" not in named:
            for module in model.modalities[name].connector.modules():
                if isinstance(module, Connector):
                    copy = partial(module.init_from, model.backbone)
                    yield partial(prefix_errors, f"{path}connector", copy)
