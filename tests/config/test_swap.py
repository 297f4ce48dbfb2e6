"""Every group is held to its contract: cards of other groups, uncalled classes, and values that are no cards."""

from copy import deepcopy
from functools import cache

import pytest
import yaml

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.contracts import CONTRACTS
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import is_card, plain
from mmrnn.config.validate import RUN, check


@cache
def classes(group: str) -> dict:
    """One card of every class of a group, by the name of the class."""
    found = {}
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        card = yaml.safe_load(path.read_text())
        if is_card(card) and "defaults" not in card:
            found.setdefault(card["_target_"], card)
    return found


@cache
def base() -> dict:
    return plain(compose("model=visualrwkv6_tiny"))


def faults(path: str, value) -> tuple[str, ...]:
    cfg = node = deepcopy(base())
    *outer, name = path.split(".")
    for key in outer:
        node = node[key]
    node[name] = value
    with pytest.raises(ConfigError) as caught:
        check(cfg)
    return caught.value.faults


@pytest.mark.parametrize("group", CONTRACTS)
def test_a_card_of_another_group(group):
    for other in set(CONTRACTS) - {group}:
        for card in [*classes(other).values()][:3]:
            assert any(fault.startswith(f"{group}._target_: ") for fault in faults(group, card)), card
        assert faults(group, {**card, "_partial_": True})


@pytest.mark.parametrize("group", CONTRACTS)
def test_a_function_or_a_part_in_place_of_the_other(group):
    for name, card in classes(group).items():
        if card.get("_partial_") and not name.rpartition(".")[2][0].isupper():
            assert "is a function; name a class, or set _partial_" in faults(group, {**card, "_partial_": False})[0]
        else:
            [fault] = [one for one in faults(group, {**card, "_partial_": not card.get("_partial_")}) if "_pa" in one]
            assert fault.startswith(f"{group}._partial_: ")


@pytest.mark.parametrize("group", [*CONTRACTS, "stage", "modalities"])
def test_a_value_that_is_no_card(group):
    for value in (3, "linear", [1], True, {"a": 1}):
        assert any(fault.startswith(group) for fault in faults(group, value)), value


@pytest.mark.parametrize(
    ("path", "around", "own"),
    [
        ("connector", lambda card: {"_target_": "mmrnn.connectors.Sequential", "parts": [card]}, "connector"),
        ("connector", lambda card: {"_target_": "mmrnn.connectors.CrossAttentionTokens", "part": card}, "connector"),
        ("encoder", lambda card: {"_target_": "mmrnn.encoders.FusedEncoder", "towers": [card]}, "encoder"),
        ("objective", lambda card: {"_target_": "mmrnn.training.WeightedSum", "parts": [card]}, "objective"),
        ("data", lambda card: {"_target_": "mmrnn.data.Mixture", "parts": {"a": card}}, "data"),
        ("stage.instruct.optimizer", lambda card: card, "optimizer"),
        ("stage.instruct.schedule", lambda card: card, "schedule"),
        ("backbone.depth", lambda card: card, None),
    ],
)
def test_cards_inside_cards(path, around, own):
    for group in set(CONTRACTS) - {own}:
        for card in [*classes(group).values()][:2]:
            for partial in ({}, {"_partial_": True}):
                assert any(fault.startswith(path) for fault in faults(path, around({**card, **partial})))
    if own is not None:
        assert any(fault.startswith(path) for fault in faults(path, around(3)))


def test_stages_and_weights_of_another_kind():
    linear = {"_target_": "mmrnn.connectors.Linear", "_partial_": True}
    assert faults("stage", {"a": linear}) == (
        "stage.a._target_: Linear does not fulfil the contract mmrnn.types.TrainingStage; inherit it",
    )
    assert faults("weights", 3) == ("weights: expected a mapping of parts to files, got 3",)
    assert faults("weights", {"backbone": 3}) == (
        "weights.backbone: expected a file, a folder or a name on the hub, got 3",
    )


def test_what_a_run_needs():
    cfg = {**base(), "tokenizer": None, "stage": {}}
    check(cfg)
    with pytest.raises(ConfigError) as caught:
        check(cfg, needs=RUN)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["tokenizer", "stage"]
