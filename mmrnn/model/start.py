"""Building of a model without memory, and the initial values that it gets once it is sharded."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.skip_init import DrawOnly, meta_parameters
from mmrnn.config.tree import modalities, plain
from mmrnn.config.validate import check
from mmrnn.model.assemble import INHERIT, assemble, prefix_errors, weight_plan
from mmrnn.model.begin import copies_of_backbone
from mmrnn.model.build import added_tokens
from mmrnn.model.vlm import VLM
from mmrnn.weights.inherit import read_inheritance
from mmrnn.weights.load import read_converted

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass
class Start:
    """Initial values of a model whose parameters are on the meta device.

    Attributes:
        initialisers: functions that draw random numbers, in the order in which a build in memory draws them. Those of
            parts that files bring draw only, the others fill their part.
        values: name of a parameter or buffer -> its content, as read from a file and still mapped.
        copies: functions that fill what is a copy of parameters with their final values.
    """

    initialisers: list[Callable[[], None]] = field(default_factory=list)
    values: dict[str, Tensor] = field(default_factory=dict)
    copies: list[Callable[[], None]] = field(default_factory=list)


def build_on_meta(cfg: "DictConfig | Mapping[str, Any]", *, trusted: Collection[str] = ()) -> tuple[VLM, Start]:
    """Build what `build` builds, with all parameters on the meta device, and buffers in memory.

    The files that `weights` names are opened and mapped, not read.

    Args:
        cfg: composed by `compose`, or plain dicts and lists.
        trusted: further packages whose classes the cards may name.

    Raises:
        ConfigError: the faults that `check` finds, or a part that refuses its knobs or its weights.
        ConnectionError: published weights are asked for, and their hub cannot be reached.
    """
    check(cfg, trusted=trusted)
    tree, start = plain(cfg), Start()
    if tree.get("quantize") and instantiate(tree["quantize"], trusted=trusted).quantizes:
        raise ConfigError("quantize: a model that is built in shards has weights, not codes; use quantize=none")
    with meta_parameters():
        model = assemble(tree, trusted)
    for parameter in model.parameters():
        # Some towers lay their convolutions out for the CPU, in an order that cannot be sharded.
        parameter.data = parameter.data.contiguous()
    paths = {id(module): f"{path}." if path else "" for path, module in model.named_modules()}
    for path, target, source in weight_plan(model):
        if path == INHERIT:
            found = prefix_errors(path, lambda source=source: read_inheritance(model, source))
            values, notes = found.values, found.notes
        else:
            values, report = prefix_errors(
                path, lambda at=target, source=source: read_converted(at, source, max_new_rows=added_tokens(tree))
            )
            notes = report.notes
        start.values |= {paths[id(target)] + name: value for name, value in values.items()}
        model.load_notes += tuple(f"{path}: {note}" for note in notes)
    start.initialisers = _initialisers(model, start.values, trusted)
    start.copies += copies_of_backbone(model)
    if card := tree.get("adapter"):
        adapter = instantiate(card, trusted=trusted)
        before = dict(model.named_modules())
        with meta_parameters():
            prefix_errors("adapter", lambda: adapter(model))
        start = _adapted(start, model, before)
        start.initialisers.append(lambda: adapter.reset(model))
    return model, start


def _initialisers(model: VLM, values: Mapping[str, Tensor], trusted: Collection[str]) -> list[Callable[[], None]]:
    """Functions that draw what a build in memory draws: it constructs all parts but a loaded backbone in memory."""

    def is_loaded(path: str) -> bool:
        return all(f"{path}.{name}" in values for name in model.get_submodule(path).state_dict())

    found: list[Callable[[], None]] = [] if is_loaded("backbone") else [model.backbone.reset]
    for name, _, cards in modalities(model.config):
        modality, path = model.modalities[name], f"modalities.{name}"
        encoder = modality.encoder.reset
        if is_loaded(f"{path}.encoder"):
            encoder = _drawer(cards["encoder"], trusted)
        found += [encoder, modality.connector.reset]
    return found if model.hook is None else [*found, model.hook.reset]


def _drawer(card: Mapping[str, Any], trusted: Collection[str]) -> Callable[[], None]:
    def draw() -> None:
        with torch.device("meta"), DrawOnly():
            instantiate(card, trusted=trusted)

    return draw


def _adapted(start: Start, model: nn.Module, before: Mapping[str, nn.Module]) -> Start:
    """Return the initial values of a model whose layers an adapter has put into others, as their `base_layer`.

    Args:
        before: modules by path, without the adapter.
    """
    known = set(model.state_dict())
    moved = {name: f"{path}.base_layer.{leaf}" for name in start.values for path, _, leaf in [name.rpartition(".")]}
    values = {name if name in known else moved[name]: value for name, value in start.values.items()}
    replaced = []
    for path, module in before.items():
        parent, _, leaf = path.rpartition(".")
        if path and before[parent]._modules[leaf] is not module:
            replaced.append((before[parent], leaf, module))
    as_before = partial(_without_adapter, replaced)
    initialisers, copies = (
        [partial(as_before, call) for call in calls] for calls in (start.initialisers, start.copies)
    )
    return Start(initialisers, values, copies)


def _without_adapter(replaced: Sequence[tuple[nn.Module, str, nn.Module]], call: Callable[[], None]) -> None:
    """Call with the layers of a model in the places that the adapter has taken."""
    adapted = [parent._modules[leaf] for parent, leaf, _ in replaced]
    for parent, leaf, module in replaced:
        parent._modules[leaf] = module
    try:
        call()
    finally:
        for (parent, leaf, _), module in zip(replaced, adapted, strict=True):
            parent._modules[leaf] = module
