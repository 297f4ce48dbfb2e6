"""Faults of a configuration: of its cards one by one, of its settings, and of parts that do not go together."""

from collections.abc import Collection, Iterator, Mapping
from inspect import Parameter, isclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mmrnn.config.coerce import fit, near
from mmrnn.config.compatibility import mismatches
from mmrnn.config.compose import conf_dir
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import RESERVED, find, parameters, positional
from mmrnn.config.tree import Tree, at, cards, is_card, leaves, modalities, plain, sources
from mmrnn.io import hub, packages
from mmrnn.types import parts
from mmrnn.types.parts import fulfils

if TYPE_CHECKING:
    from omegaconf import DictConfig

WIRED = {"encoder": 0, "connector": 2, "backbone": 0}
"""Positional arguments that the builder gives to the parts of these groups; elsewhere it gives all."""

CONTRACTS: Mapping[str, tuple[type, ...]] = {
    "encoder": (parts.Encoder,),
    "connector": (parts.Connector,),
    "backbone": (parts.Backbone,),
    "scan": (parts.Scan,),
    "position": (parts.Position,),
    "mask": (parts.Mask,),
    "hook": (parts.Hook,),
    "prompt": (parts.Prompt,),
    "tokenizer": (parts.Tokenizer,),
    "data": (parts.MapDataset, parts.StreamDataset),
    "objective": (parts.Objective,),
    "optimizer": (parts.Optimizer,),
    "schedule": (parts.Schedule,),
}
"""Contracts of the groups; a part fulfils one of them."""


def check(cfg: "DictConfig | Mapping[str, Any]", *, trusted: Collection[str] = ()) -> None:
    """Compare a configuration with the parts that it names, before anything is built.

    Args:
        trusted: packages beside mmrnn whose classes the cards may name.

    Raises:
        ConfigError: every fault at once, as `path: fault, and the way out`.
    """
    if found := faults(plain(cfg), trusted):
        raise ConfigError(*found)


def faults(tree: Tree, trusted: Collection[str] = ()) -> list[str]:
    """Every fault of a configuration; parts are compared with each other only where each is right by itself."""
    alone = [*_card_faults(tree, trusted), *_weight_faults(tree)]
    return [*(alone or mismatches(tree, trusted)), *_setting_faults(tree)]


def _setting_faults(tree: Tree) -> Iterator[str]:
    """Values of another type than the root file, which is the signature of all that belongs to no part, gives them."""
    root = yaml.safe_load((conf_dir() / "train.yaml").read_text(encoding="utf-8"))
    own = {name: value for name, value in root.items() if name not in ("defaults", "hydra", "out")}
    for path, default in leaves(own):
        if default is not None:
            yield from _misfit(at(tree, path, default), type(default), path)


def _card_faults(tree: Tree, trusted: Collection[str]) -> Iterator[str]:
    required = _parts(tree)
    for path in required:
        if not is_card(at(tree, path)):
            group = path.rpartition(".")[2]
            yield f"{path}: nothing is chosen; say {path}=NAME (`mmrnn list {group}` names them)"
    for path, card in cards(tree):
        name = path.rpartition(".")[2]
        group = name if path in required or (path.startswith("stage.") and name in CONTRACTS) else path
        wired = WIRED.get(group, None if group in tree else 0)
        yield from card_faults(card, path, wired, trusted)
        yield from _contract_fault(card, path, CONTRACTS.get(group, ()), trusted)
    for stage in tree.get("stage") or {}:
        for group in ("optimizer", "schedule"):
            path = f"stage.{stage}.{group}"
            value = at(tree, path)
            if value is not None and not is_card(value):
                yield f"{path}: expected a card, got {value!r}; say +{group}@{path}=NAME"


def card_faults(
    card: Mapping[str, Any], path: str, wired: int | None = 0, trusted: Collection[str] = ()
) -> Iterator[str]:
    """Faults of one card; cards inside it are not looked at.

    Args:
        wired: number of positional parameters that the builder supplies; None: all of them.
    """
    try:
        target = find(card, trusted)
    except ValueError as error:
        yield f"{path}._target_: {error}"
        return
    supplied = positional(target)[:wired]
    known = {name: one for name, one in parameters(target).items() if name not in supplied}
    named = {name: one for name, one in known.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    for name, value in card.items():
        place = f"{path}.{name}"
        if name in RESERVED:
            continue
        if name in supplied:
            yield f"{place}: the builder sets it from the neighbouring part; leave it out"
        elif name not in named and len(named) == len(known):
            yield f"{place}: {target.__name__} has no such knob{near(name, named) or _list(named)}"
        elif isinstance(value, str) and value == "???":
            yield f"{place}: needs a value"
        elif name in named:
            yield from _misfit(value, named[name].annotation, place)
    for name in () if card.get("_partial_") else named:
        if name not in card and named[name].default is Parameter.empty:
            yield f"{path}.{name}: {target.__name__} needs it; add it to the card"


def _contract_fault(
    card: Mapping[str, Any], path: str, contracts: tuple[type, ...], trusted: Collection[str]
) -> Iterator[str]:
    try:
        target = find(card, trusted)
    except ValueError:
        return  # said by `card_faults`
    if contracts and not any(fulfils(target, contract) for contract in contracts):
        names = " or ".join(contract.__name__ for contract in contracts)
        way = "inherit it" if isclass(target) else f"decorate it with @implements({names})"
        yield f"{path}._target_: {target.__name__} does not fulfil the contract mmrnn.types.{names}; {way}"


def _misfit(value: Any, hint: Any, place: str) -> Iterator[str]:
    try:
        fit(value, hint)
    except TypeError as error:
        yield f"{place}: {error}"


def _list(knobs: Collection[str]) -> str:
    return f"; it has {', '.join(knobs)}" if knobs else "; it has none"


def _parts(tree: Tree) -> list[str]:
    """Paths of the parts that every model has."""
    return ["backbone", *(f"{path}{part}" for _, path, _ in modalities(tree) for part in ("encoder", "connector"))]


def _weight_faults(tree: Tree) -> Iterator[str]:
    loadable = ["model", *_parts(tree), *(["hook"] if tree.get("hook") else [])]
    for path, source in sources(tree.get("weights") or {}):
        if path == "hook" and source is None:
            continue
        if path not in loadable:
            yield f"weights.{path}: there is no such part; there are: {', '.join(loadable)}"
        for one in source if isinstance(source, list | tuple) else [source]:
            if one is not None and not (Path(one).exists() or hub.is_id(one) or packages.is_packaged(one)):
                yield f"weights.{path}: there is no file or folder {str(one)!r}"
