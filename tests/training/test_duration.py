"""The duration of a run is printed at its beginning, and measuring it changes nothing."""

import re

import pytest
import torch
from safetensors.torch import load_file

from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.training import preparation
from mmrnn.training.build import build_parts
from mmrnn.training.duration import estimate_duration
from mmrnn.training.run import train
from mmrnn.types import Sample, Turn

SMALL = (
    "model=visualrwkv6_tiny",
    "data.scenes=12",
    "data.rounds=4",
    "stage.instruct.steps=4",
    "stage.instruct.batch_size=4",
    "stage.instruct.grad_accum_steps=2",
    "backbone.dropout=0.1",
    "evaluate.samples=3",
    "evaluate.every=2",
    "evaluate.max_new_tokens=4",
)


@pytest.mark.parametrize("encoder", ["patch_tiny", "frozen"])
def test_a_run_is_the_same_with_and_without_the_estimate(tmp_path, monkeypatch, capsys, encoder):
    # A frozen encoder has its features cached; patches are encoded in every step.
    choice = ["encoder=patch_tiny"] if encoder == "patch_tiny" else []
    cfg = plain(compose(*SMALL, *choice))
    train(cfg, tmp_path / "without")
    assert "in all" not in capsys.readouterr().err
    monkeypatch.setattr(preparation, "MIN_PLANNED_STEPS", 4)
    train(cfg, tmp_path / "with")
    stderr = capsys.readouterr().err
    assert re.search(r"about \d:\d\d:\d\d in all", stderr), stderr
    before, after = (load_file(str(tmp_path / name / "model.safetensors")) for name in ("without", "with"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_estimate_grows_with_what_is_to_be_done():
    cfg = plain(compose(*SMALL, "stage.instruct.steps=1000"))
    parts = build_parts(cfg)
    splits = parts.data.held_out(3)
    counts = {"cached_images": 1000, "interim_questions": 9}
    whole = estimate_duration(parts, splits, cfg, **counts)
    assert list(whole) == ["features", "training instruct", "evaluation"]
    assert all(seconds > 0 for seconds in whole.values())
    assert all(parameter.grad is None for parameter in parts.model.parameters())
    rest = estimate_duration(parts, {}, cfg, cached_images=0, interim_questions=0, done=1000)
    assert rest == {"features": 0.0, "training instruct": 0.0, "evaluation": 0.0}


def test_texts_that_a_connector_does_not_learn_from(monkeypatch):
    cfg = plain(compose(*SMALL, "stage.instruct.train=[connector]"))
    parts = build_parts(cfg)
    text = Sample((Turn("user", "what?"), Turn("assistant", "this")))
    monkeypatch.setattr(type(parts.data), "__getitem__", lambda *_: text)
    whole = estimate_duration(parts, {}, cfg, cached_images=0, interim_questions=0)
    assert whole["training instruct"] > 0
