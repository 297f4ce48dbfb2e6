"""Random settings: `check` or the part that gets them refuses in words, or a tiny model is built and runs."""

from inspect import Parameter
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import find_target, parameters
from mmrnn.config.settings import EvaluateSettings, Settings
from mmrnn.config.tree import cards, plain
from mmrnn.config.validate import RUN, check
from mmrnn.model.build import build
from mmrnn.types import Sequence

MODELS = ("visualrwkv6_tiny", "visualrwkv7_tiny", "llava15_tiny", "blip2_tiny", "flamingo_tiny")
OTHER = st.sampled_from([None, True, "x", "", [], {}, [1], {"a": 1}, -1, 0, 1, 2, 3, 7, 64, 0.5, 1e9, float("nan")])


def values(hint: Any) -> st.SearchStrategy:
    """Values near a hint: choices of a literal, small numbers in and out of range, and values of other types."""
    if get_origin(hint) is Annotated:
        return values(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return st.sampled_from([*get_args(hint), "nothing"])
    if hint is int:
        return st.integers(-2, 96)
    if hint is float:
        return st.floats(-0.5, 1.5)
    return OTHER


def knobs(tree: dict) -> list[tuple[str, Any]]:
    """Path and hint of every knob of every card, and of every setting."""
    found = [(name, one.annotation) for name, one in parameters(Settings).items() if name not in ("evaluate", "device")]
    found += [(f"evaluate.{name}", one.annotation) for name, one in parameters(EvaluateSettings).items()]
    for path, card in cards(tree):
        for name, one in parameters(find_target(card)).items():
            if one.kind is Parameter.KEYWORD_ONLY and name not in ("pretrained", "path", "file"):
                found.append((f"{path}.{name}", one.annotation))
    return found


def set_node(tree: dict, path: str, value: Any) -> None:
    *outer, name = path.split(".")
    for key in outer:
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    if isinstance(tree, dict):
        tree[name] = value


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_settings_are_refused_in_words_or_build(data):
    tree = plain(compose(f"model={data.draw(st.sampled_from(MODELS))}"))
    tree["weights"] = {}
    known = knobs(tree)
    for _ in range(data.draw(st.integers(1, 2))):
        path, hint = data.draw(st.sampled_from(known))
        set_node(tree, path, data.draw(st.one_of(values(hint), OTHER)))
    model, faults = None, ()
    try:
        check(tree, needs=RUN)
        model = build(tree)
    except ConfigError as error:
        faults = error.faults
    if model is None:
        assert faults
        assert all(": " in fault for fault in faults)
        return
    with torch.no_grad():
        hidden, _ = model.backbone.eval()(Sequence(torch.zeros(1, 3, dtype=torch.long)))
    assert hidden.shape[:2] == (1, 3)
