"""Validation of a configuration: its cards one by one, its settings, and parts that do not fit together."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import is_dataclass
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn.config.coerce import coerce, did_you_mean
from mmrnn.config.compatibility import mismatches, quantizes
from mmrnn.config.compose import compose
from mmrnn.config.contracts import CONTRACTS, group_faults, knob_card_faults, shape_faults
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import RESERVED_KEYS, find_target, instantiate, parameters, positional_names
from mmrnn.config.settings import EvalSettings, EvaluateSettings, Settings
from mmrnn.config.tree import Tree, cards, get_node, is_card, modalities, plain, weight_sources
from mmrnn.io import hub, packages
from mmrnn.types import ChecksKnobs, fulfils

if TYPE_CHECKING:
    from omegaconf import DictConfig

WIRED = {"encoder": 0, "connector": 2, "backbone": 0}
"""Number of positional arguments that the builder supplies to parts of these groups; elsewhere it supplies all."""


RUN = ("prompt", "tokenizer", "data", "batching", "stage", "objective", "optimizer", "schedule", "strategy", "tracker")
"""Groups that a training run needs beside those of the model."""


def check(cfg: "DictConfig | Mapping[str, Any]", *, trusted: Collection[str] = (), needs: Collection[str] = ()) -> None:
    """Compare a configuration with the parts that it names, before anything is built.

    Args:
        trusted: further packages whose classes the cards may name.
        needs: groups that must be chosen beside those of the model (`RUN`: to train it).

    Raises:
        ConfigError: all faults at once, each as `path: fault; way out`.
    """
    tree = plain(cfg)
    absent = [f"{group}: no card is chosen; set {group}=NAME" for group in needs if not tree.get(group)]
    found = [*absent, *faults(tree, trusted)]
    if "stage" in needs and not found and quantizes(tree, trusted):
        found = ["quantize: codes are not trained; train with quantize=none, then `mmrnn convert RUN OUT quantize=...`"]
    if found:
        raise ConfigError(*found)


def check_eval(cfg: "DictConfig | Mapping[str, Any]", *, trusted: Collection[str] = ()) -> None:
    """Compare a configuration of `mmrnn eval` with the parts that it names, before anything is built.

    Raises:
        ConfigError: all faults at once.
    """
    tree = plain(cfg)
    found = [] if is_card(tree.get("task")) else ["task: no card is chosen; set task=NAME (`mmrnn list task`)"]
    if found := [*found, *_faults_of(tree, ("task", "prompt"), trusted), *_field_faults(tree, EvalSettings, "")]:
        raise ConfigError(*found)


def check_groups(
    cfg: "DictConfig | Mapping[str, Any]", groups: Collection[str], *, trusted: Collection[str] = ()
) -> None:
    """Compare the cards of some groups with the parts that they name; the rest of the configuration is not looked at.

    Raises:
        ConfigError: all faults at once.
    """
    if found := [*_faults_of(plain(cfg), groups, trusted)]:
        raise ConfigError(*found)


def _faults_of(tree: Tree, groups: Collection[str], trusted: Collection[str]) -> Iterator[str]:
    """Faults of the cards of some groups."""
    for group in groups:
        for path, card in cards(tree.get(group), group):
            wrong = [*card_faults(card, path, None, trusted)]
            yield from wrong or group_faults(card, path, path, trusted)


def faults(tree: Tree, trusted: Collection[str] = ()) -> list[str]:
    """Return all faults of a configuration; parts are compared with each other only where each is valid."""
    if wrong := [*shape_faults(tree)]:
        return wrong
    single = [*_card_faults(tree, trusted), *_weight_faults(tree)]
    joint = single or [*_joint_faults(tree, trusted), *mismatches(tree, trusted)]
    # A card inside a stage is compared with its group and with the hint of its knob.
    return [*dict.fromkeys([*joint, *_setting_faults(tree), *_stage_faults(tree, trusted)])]


def _setting_faults(tree: Tree) -> Iterator[str]:
    """Settings that belong to no part and do not fit `Settings`; those left out have their defaults."""
    yield from _field_faults(tree, Settings, "")
    yield from (wrong := [*_field_faults(get_node(tree, "evaluate", {}), EvaluateSettings, "evaluate.")])
    for name in () if wrong else get_node(tree, "evaluate.tasks", ()):
        try:
            check_eval(compose(f"task={name}", config="eval"))
        except ConfigError as error:
            yield from (f"evaluate.tasks: {fault}" for fault in error.faults)


def _field_faults(node: Any, settings: type, prefix: str) -> Iterator[str]:
    if not isinstance(node, Mapping):
        yield f"{prefix.rstrip('.')}: expected a mapping, got {node!r}"
        return
    known = parameters(settings)
    for name in node if prefix else ():
        if name not in known:
            yield f"{prefix}{name}: no such setting{did_you_mean(name, known) or _list(known)}"
    for name, knob in known.items():
        if name in node and not is_dataclass(knob.annotation):
            yield from _misfit(node[name], knob.annotation, f"{prefix}{name}")


def _stage_faults(tree: Tree, trusted: Collection[str]) -> Iterator[str]:
    """Stages that refuse their knobs, and patterns of parameters that name no part of the model."""
    hook = ["hook"] if tree.get("hook") else []
    known = ["backbone", "encoder", "connector", *hook, "objective", "modalities"]
    for path, card in ((f"stage.{name}", card) for name, card in (tree.get("stage") or {}).items()):
        if [*card_faults(card, path, trusted=trusted), *group_faults(card, path, "stage", trusted)]:
            continue
        for name in ("train", "freeze", "lr_mult", "layer_lr_decay"):
            for pattern in card.get(name) or ():
                part = pattern.partition(".")[0]
                if part not in known and not set("*?[").intersection(part):
                    near = did_you_mean(part, known) or f"; there are {', '.join(known)}"
                    yield f"{path}.{name}: {pattern!r} names no part of the model{near}"
        try:
            own = {name: value for name, value in card.items() if name not in ("optimizer", "schedule")}
            instantiate(own, trusted=trusted)
        except ValueError as error:
            yield f"{path}: {error}"


def _card_faults(tree: Tree, trusted: Collection[str]) -> Iterator[str]:
    required = _parts(tree)
    for path in required:
        if not is_card(get_node(tree, path)):
            group = path.rpartition(".")[2]
            yield f"{path}: no card is chosen; set {path}=NAME (`mmrnn list {group}` shows them)"
    for path, card in cards(tree):
        name = path.rpartition(".")[2]
        group = name if path in required or (path.startswith("stage.") and name in CONTRACTS) else path
        group = "stage" if path.startswith("stage.") and path.count(".") == 1 else group
        wired = WIRED.get(group, None if group in tree else 0)
        found = [*card_faults(card, path, wired, trusted)]
        yield from found
        if not any(fault.startswith(f"{path}._target_:") for fault in found):
            yield from group_faults(card, path, group, trusted)


def card_faults(
    card: Mapping[str, Any], path: str, wired: int | None = 0, trusted: Collection[str] = ()
) -> Iterator[str]:
    """Yield the faults of one card; cards inside it are not checked.

    Args:
        path: of the card, for messages.
        wired: number of positional parameters that the builder supplies; None: all of them.
        trusted: further packages whose classes the card may name.
    """
    try:
        target = find_target(card, trusted)
    except ValueError as error:
        yield f"{path}._target_: {error}"
        return
    supplied = positional_names(target)[:wired]
    known = {name: one for name, one in parameters(target).items() if name not in supplied}
    named = {name: one for name, one in known.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    for name, value in card.items():
        place = f"{path}.{name}"
        if name in RESERVED_KEYS:
            continue
        if name in supplied:
            yield f"{place}: the builder supplies it from the neighbouring part; remove it"
        elif name not in named and len(named) == len(known):
            yield f"{place}: {target.__name__} has no such knob{did_you_mean(name, named) or _list(named)}"
        elif isinstance(value, str) and value == "???":
            yield f"{place}: a value is required; set {place}=VALUE"
        elif name in named:
            found = [*_misfit(value, named[name].annotation, place)]
            yield from found or knob_card_faults(value, named[name].annotation, place, trusted)
    for name in () if card.get("_partial_") else named:
        if name not in card and named[name].default is Parameter.empty:
            yield f"{path}.{name}: {target.__name__} requires it; add it to the card"


def _joint_faults(tree: Tree, trusted: Collection[str]) -> Iterator[str]:
    """Faults that parts find in their knobs taken together; every card of the tree must be valid."""
    for path, card in cards(tree):
        target = find_target(card, trusted)
        if not fulfils(target, ChecksKnobs):
            continue
        known = parameters(target)
        knobs = {name: one.default for name, one in known.items() if one.kind is Parameter.KEYWORD_ONLY}
        knobs |= {name: coerce(card[name], known[name].annotation) for name in knobs if name in card}
        for name, fault in target.knob_faults(knobs):
            yield f"{path}.{name}: {fault}"


def _misfit(value: Any, hint: Any, place: str) -> Iterator[str]:
    try:
        coerce(value, hint)
    except TypeError as error:
        yield f"{place}: {error}"


def _list(knobs: Collection[str]) -> str:
    return f"; it has {', '.join(knobs)}" if knobs else "; it has none"


def _parts(tree: Tree) -> list[str]:
    """Paths of the parts that every model has."""
    return ["backbone", *(f"{path}{part}" for _, path, _ in modalities(tree) for part in ("encoder", "connector"))]


def _weight_faults(tree: Tree) -> Iterator[str]:
    loadable = ["model", *_parts(tree), *(["hook"] if tree.get("hook") else []), "inherit"]
    for path, source in weight_sources(tree.get("weights")):
        if path in ("hook", "inherit") and source is None:
            continue
        if path not in loadable:
            yield f"weights.{path}: no such part; there are: {', '.join(loadable)}"
        for one in source if isinstance(source, list | tuple) else [source]:
            if one is not None and not isinstance(one, str):
                yield f"weights.{path}: expected a file, a folder or a name on the hub, got {one!r}"
            elif one is not None and not (Path(one).exists() or hub.is_repo_id(one) or packages.is_packaged(one)):
                yield f"weights.{path}: no such file or folder: {str(one)!r}"
