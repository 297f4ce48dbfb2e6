"""Contracts of the groups of cards, and of the knobs that take cards."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from inspect import isclass
from types import UnionType
from typing import Annotated, Any, Protocol, Union, get_args, get_origin

from mmrnn.config.instantiate import find_target
from mmrnn.config.tree import Tree, is_card
from mmrnn.types import (
    Adapter,
    Backbone,
    Batching,
    Connector,
    Encoder,
    Hook,
    MapDataset,
    Mask,
    Objective,
    Optimizer,
    Position,
    Prompt,
    Quantizer,
    Scan,
    Schedule,
    Strategy,
    StreamDataset,
    Tokenizer,
    Tracker,
    TrainingStage,
    fulfils,
)

CONTRACTS: Mapping[str, tuple[type, ...]] = {
    "encoder": (Encoder,),
    "connector": (Connector,),
    "backbone": (Backbone,),
    "scan": (Scan,),
    "position": (Position,),
    "mask": (Mask,),
    "hook": (Hook,),
    "adapter": (Adapter,),
    "quantize": (Quantizer,),
    "prompt": (Prompt,),
    "tokenizer": (Tokenizer,),
    "data": (MapDataset, StreamDataset),
    "batching": (Batching,),
    "objective": (Objective,),
    "optimizer": (Optimizer,),
    "schedule": (Schedule,),
    "strategy": (Strategy,),
    "tracker": (Tracker,),
}
"""Contracts of each group; a part fulfils one of them."""

UNCALLED = frozenset({"optimizer"})
"""Groups whose classes are called later, with arguments of the run: their cards say `_partial_: true`."""


def group_faults(card: Tree, path: str, group: str, trusted: Collection[str]) -> Iterator[str]:
    """Yield the faults of a card in a place that takes parts of one group; the target of the card must exist."""
    contracts = (TrainingStage,) if group == "stage" else CONTRACTS.get(group, ())
    target = find_target(card, trusted)
    if contracts and not any(fulfils(target, contract) for contract in contracts):
        yield f"{path}._target_: {_unfulfilled(target, contracts)}"
    elif contracts and isclass(target):
        yield from _partial_fault(card, path, group in UNCALLED)


def knob_card_faults(value: Any, hint: Any, path: str, trusted: Collection[str]) -> Iterator[str]:
    """Yield the faults of the cards in a value of a knob: of another kind than its hint names, or of none.

    Args:
        value: of the knob: a card, a list or mapping of cards, or anything else.
        hint: annotation of the knob: a contract, a function that returns a part, or a list or mapping of these.
        path: of the value.
        trusted: further packages whose classes the cards may name.
    """
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from knob_card_faults(value, inside[0], path, trusted)
    elif origin in (Sequence, list, tuple) and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from knob_card_faults(item, inside[0] if inside else Any, f"{path}.{index}", trusted)
    elif origin in (Mapping, dict) and isinstance(value, Mapping) and not is_card(value):
        for name, item in value.items():
            yield from knob_card_faults(item, inside[1] if inside else Any, f"{path}.{name}", trusted)
    elif options := [one for one in (inside if origin in (Union, UnionType) else [hint]) if _takes_card(one)]:
        if value is None and type(None) in inside:
            return
        if not is_card(value):
            name = path.rpartition(".")[2]
            way = f"; set +{name}@{path}=NAME" if name in CONTRACTS else "; a card is a mapping with _target_"
            yield f"{path}: expected a card, got {value!r}{way}"
            return
        reasons = [[*_option_faults(value, option, path, trusted)] for option in options]
        if all(reasons):
            yield from min(reasons, key=lambda found: "_partial_" not in found[0])
    elif is_card(value) and hint is not Any:
        yield f"{path}: expected a plain value, got a card of {value['_target_']}"


def _takes_card(hint: Any) -> bool:
    if get_origin(hint) is Callable:
        return True
    return isclass(hint) and (hint.__module__.startswith("mmrnn.types.") or Protocol in hint.__bases__)


def _option_faults(card: Tree, hint: Any, path: str, trusted: Collection[str]) -> Iterator[str]:
    """Faults of a card as one option of a knob: a part, or a function that returns one."""
    try:
        target = find_target(card, trusted)
    except ValueError:
        return  # reported with the card
    later = get_origin(hint) is Callable
    contract = get_args(hint)[1] if later else hint
    if not fulfils(target, contract):
        yield f"{path}._target_: {_unfulfilled(target, (contract,))}"
    elif isclass(target):
        yield from _partial_fault(card, path, later)


def _partial_fault(card: Tree, path: str, uncalled: bool) -> Iterator[str]:
    if uncalled and card.get("_partial_") is not True:
        yield f"{path}._partial_: the class is called later, with arguments of its neighbours; set _partial_: true"
    elif not uncalled and card.get("_partial_"):
        yield f"{path}._partial_: a part belongs here, not a function that makes one; remove _partial_"


def _unfulfilled(target: Any, contracts: tuple[type, ...]) -> str:
    names = " or ".join(contract.__name__ for contract in contracts)
    way = "inherit it" if isclass(target) else f"decorate it with @implements({names})"
    return f"{target.__name__} does not fulfil the contract mmrnn.types.{names}; {way}"


def shape_faults(tree: Tree) -> Iterator[str]:
    """Yield the places of a configuration that hold something else than a card, or a mapping of cards."""
    if others := [name for name in tree if not isinstance(name, str)]:
        yield f"{others[0]!r}: a name of a setting is a text; put it in quotes or leave it out"
        return
    for group in CONTRACTS:
        if tree.get(group) is not None and not is_card(tree[group]):
            yield f"{group}: expected a card, got {tree[group]!r}; set {group}=NAME (`mmrnn list {group}` shows them)"
    for group in ("modalities", "stage"):
        value = {} if tree.get(group) is None else tree[group]
        if not isinstance(value, Mapping):
            yield f"{group}: expected a mapping of names, got {value!r}; set {group}=NAME"
            continue
        for name, item in value.items():
            if not isinstance(item, Mapping) or (group == "stage" and not is_card(item)):
                expected = "a card" if group == "stage" else "an encoder and a connector"
                yield f"{group}.{name}: expected {expected}, got {item!r}"
    weights = tree.get("weights")
    if weights is not None and not isinstance(weights, Mapping):
        yield f"weights: expected a mapping of parts to files, got {weights!r}"
