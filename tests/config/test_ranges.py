"""Ranges and choices of knobs and settings stand in signatures, and `check` holds every value to them."""

import json
from dataclasses import asdict
from inspect import Parameter
from typing import Annotated, get_args, get_origin

import pytest
import yaml

from mmrnn.backbones.rwkv import Backend
from mmrnn.config.coerce import coerce
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import find_target, parameters
from mmrnn.config.settings import EvalSettings, Settings
from mmrnn.config.tree import cards
from mmrnn.config.validate import check
from mmrnn.types import Constraint, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from mmrnn_kernels.wkv5 import OPERATOR as WKV5
from mmrnn_kernels.wkv6 import OPERATOR as WKV6
from mmrnn_kernels.wkv7 import OPERATOR as WKV7

SIGNED = {"layer"}
"""Numbers without a range of their own: a layer, counted from either end, is compared with the depth of its tower."""


def targets() -> list:
    """Every class and function that a card in `conf/` names, once."""
    found = {}
    for path in sorted(conf_dir().glob("*/*.yaml")):
        for _, card in cards(yaml.safe_load(path.read_text(encoding="utf-8")) or {}):
            found[card["_target_"]] = find_target(card)
    return [pytest.param(target, id=name) for name, target in found.items()]


def unbounded(hint) -> list[type]:
    """Number types inside a hint that no constraint holds."""
    if get_origin(hint) is Annotated:
        return [] if any(isinstance(one, Constraint) for one in get_args(hint)[1:]) else unbounded(get_args(hint)[0])
    if hint in (int, float):
        return [hint]
    return (
        [] if callable(hint) and not get_args(hint) else [one for inner in get_args(hint) for one in unbounded(inner)]
    )


@pytest.mark.parametrize("target", targets())
def test_every_number_has_a_range(target):
    knobs = {name: one for name, one in parameters(target).items() if one.kind is Parameter.KEYWORD_ONLY}
    bare = {name for name, one in knobs.items() if unbounded(one.annotation) and name not in SIGNED}
    assert bare == set()
    for name, one in knobs.items():
        if one.default is not Parameter.empty and isinstance(one.default, int | float | str | tuple):
            assert coerce(one.default, one.annotation) == one.default, name


def test_the_settings_of_the_root_file():
    root = yaml.safe_load((conf_dir() / "train.yaml").read_text())
    own = {name: value for name, value in root.items() if name not in ("defaults", "hydra", "out", "weights")}
    assert own == json.loads(json.dumps(asdict(Settings())))


def test_the_settings_of_eval():
    root = yaml.safe_load((conf_dir() / "eval.yaml").read_text())
    own = {name: value for name, value in root.items() if name != "defaults"}
    assert own == json.loads(json.dumps(asdict(EvalSettings())))


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("precision=half", "precision: expected one of 'auto', 'fp32', 'bf16', 'fp16', got 'half'"),
        (
            "precision=bf61",
            "precision: expected one of 'auto', 'fp32', 'bf16', 'fp16', got 'bf61'; did you mean 'bf16'?",
        ),
        ("max_length=0", "max_length: expected int of at least 2, got 0"),
        ("log_every=0", "log_every: expected int of at least 1, got 0"),
        ("workers=-1", "workers: expected int of at least 0, got -1"),
        ("device=gpu", "device: expected str that names a device (cpu, cuda:1, xpu, npu, mps) or null, got 'gpu'"),
        ("feature_cache_gib=nan", "feature_cache_gib: expected float, got nan"),
        ("save_every_seconds=inf", "save_every_seconds: expected float of at least 0, got inf"),
        ("seed=-1", f"seed: expected int of at least 0 and below {2**63}, got -1"),
        ("evaluate.batch_size=0", "evaluate.batch_size: expected int of at least 1, got 0"),
        ("evaluate.every=-1", "evaluate.every: expected int of at least 0, got -1"),
        ("data.holdout=1.0", "data.holdout: expected float of at least 0 and below 1, got 1.0"),
        ("data.frames=0", "data.frames: expected int of at least 1, got 0"),
        ("backbone.depth=0", "backbone.depth: expected int of at least 1, got 0"),
        ("backbone.width=-8", "backbone.width: expected int of at least 1, got -8"),
        ("backbone.heads=0", "backbone.heads: expected int of at least 1 or null, got 0"),
        ("backbone.dropout=1.0", "backbone.dropout: expected float of at least 0 and below 1, got 1.0"),
        ("stage.instruct.steps=0", "stage.instruct.steps: expected int of at least 1, got 0"),
        ("stage.instruct.batch_size=0", "stage.instruct.batch_size: expected int of at least 1, got 0"),
        ("stage.instruct.lr=0", "stage.instruct.lr: expected float above 0, got 0.0"),
        ("stage.instruct.grad_accum_steps=5", "stage.instruct: batch_size (32) must be a multiple of grad_accum_steps"),
        ("stage.instruct.train=[conector]", "stage.instruct.train: 'conector' names no part of the model; did you "),
        ("stage.instruct.freeze=[hook]", "stage.instruct.freeze: 'hook' names no part of the model; there are backb"),
        ("schedule.warmup=-1", "schedule.warmup: expected int of at least 0, got -1"),
        ("optimizer.betas=[0.9,1.0]", "optimizer.betas: expected float of at least 0 and below 1, got 1.0"),
    ],
)
def test_values_out_of_range_are_refused(override, fault):
    with pytest.raises(ConfigError) as caught:
        check(compose("model=visualrwkv6_tiny", "data=llava", override))
    [found] = caught.value.faults
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (("backbone.width=100",), "backbone.width: width (100) must be a multiple of head_size ("),
        (("backbone=rwkv5_0b1", "backbone.width=100"), "backbone.width: width (100) must be a multiple of head_size ("),
        (("backbone=rwkv7_0b1", "backbone.width=100"), "backbone.width: width (100) must be a multiple of head_size ("),
        (("backbone=llama2_7b", "backbone.width=100"), "backbone.width: width (100) must be a multiple of heads (32)"),
        (("backbone=llama2_7b", "backbone.kv_heads=5"), "backbone.heads: heads (32) must be a multiple of kv_heads (5"),
        (
            ("backbone=llama2_7b", "backbone.head_size=5"),
            "backbone.head_size: head_size (5) makes heads of 5 channels",
        ),
        (("backbone=llama2_7b", "backbone.width=32"), "backbone.width: width (32) makes heads of 1 channels; rotatio"),
        (("backbone=glm_6b", "position=glm_2d", "backbone.width=96"), "backbone.width: width (96) must be a multiple "),
        (("connector=qformer", "connector.heads=5"), "connector.width: width (768) must be a multiple of heads (5)"),
        (("encoder=eve", "encoder.heads=5"), "encoder.width: width (1024) must be a multiple of heads (5)"),
    ],
)
def test_sizes_that_do_not_divide_are_refused_before_anything_is_built(overrides, fault):
    with pytest.raises(ConfigError) as caught:
        check(compose("model=visualrwkv6_tiny", *overrides))
    assert any(found.startswith(fault) for found in caught.value.faults), caught.value.faults


def test_patterns_that_name_parts_or_globs_are_accepted():
    more = ("stage.instruct.train=[backbone.blocks.*,'*.norm.*',encoder]", "stage.instruct.freeze=[connector.*]")
    check(compose("model=visualrwkv6_tiny", *more))


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (0, PositiveInt, "int of at least 1"),
        (-1, NonNegativeInt | None, "int of at least 0 or null"),
        (True, PositiveInt, "int"),
        (0.0, bool | PositiveFloat, "bool or float above 0"),
        (float("nan"), NonNegativeFloat, "float"),
        ([1, 0], tuple[PositiveInt, ...], "int of at least 1"),
        ({"encoder": -0.1}, dict[str, NonNegativeFloat], "float of at least 0"),
        (1, Fraction, "float of at least 0 and below 1"),
    ],
)
def test_a_range_is_named(value, hint, expected):
    with pytest.raises(TypeError, match=f"expected {expected}, got"):
        coerce(value, hint)
    assert coerce(1, PositiveFloat) == 1.0


def test_the_backends_of_a_backbone_are_those_of_its_operators():
    for operator in (WKV5, WKV6, WKV7):
        assert {"auto", *operator.operator.implementations} == set(get_args(Backend))
