"""Losses, gradients, weights and moments that are not finite never reach the weights or the snapshot."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.io import jsonl
from mmrnn.training import AdamW, resume
from mmrnn.training.error import TrainingError
from mmrnn.training.loader import StepLoader
from mmrnn.training.optimize import MAX_SKIPPED_STEPS
from mmrnn.training.run import train
from mmrnn.training.step import TrainStep

SMALL = (
    "model=visualrwkv6_tiny",
    "encoder=patch_tiny",
    "data.scenes=12",
    "data.rounds=4",
    "stage.instruct.steps=6",
    "stage.instruct.batch_size=2",
    "evaluate.samples=0",
    "log_every=1",
    "save_every_seconds=0",
)


def config(*overrides):
    return plain(compose(*SMALL, *overrides))


class FaultyGradient(torch.autograd.Function):
    """Identity whose gradient is `value`."""

    @staticmethod
    def forward(ctx, loss, value):
        ctx.value = value
        return loss.clone()

    @staticmethod
    def backward(ctx, grad):
        return torch.full_like(grad, ctx.value), None


@pytest.fixture
def spoil(monkeypatch):
    """Spoils the losses of the named calls: their value, or their gradient alone."""
    forward = TrainStep.forward
    calls = []

    def spoil(which, value, *, gradient):
        def loss(self, batch, share):
            calls.append(None)
            right = forward(self, batch, share)
            if len(calls) not in which:
                return right
            return FaultyGradient.apply(right, value) if gradient else right * value

        monkeypatch.setattr(TrainStep, "forward", loss)

    return spoil


@pytest.mark.parametrize(
    ("value", "gradient", "max_grad_norm"),
    [
        (math.nan, True, 0.0),
        (math.nan, False, 1.0),
        pytest.param(math.nan, True, 1.0, marks=pytest.mark.slow),
        pytest.param(math.inf, True, 1.0, marks=pytest.mark.slow),
        pytest.param(-math.inf, False, 0.0, marks=pytest.mark.slow),
    ],
)
def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, spoil, value, gradient, max_grad_norm):
    spoil({2, 3, 7}, value, gradient=gradient)
    train(config(f"stage.instruct.max_grad_norm={max_grad_norm}"), tmp_path)
    records = jsonl.records(tmp_path / "log.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["skipped_steps"] for record in records] == [0, 2, 0, 0, 1, 0]
    assert all(math.isfinite(record["loss"]) for record in records)
    assert json.loads((tmp_path / "result.json").read_text())["skipped_steps"] == 3
    assert "3 steps were skipped" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("gradient", [True, False], ids=["gradient", "loss"])
def test_several_in_a_row_end_the_run_with_its_last_good_snapshot(tmp_path, spoil, gradient, monkeypatch):
    spoil(range(4, 100), math.nan, gradient=gradient)
    good = []
    save = resume.save
    monkeypatch.setattr(
        resume, "save", lambda folder, *rest: save(folder, *rest) or good.append((folder / resume.FILE).read_bytes())
    )
    with pytest.raises(TrainingError, match=rf"step 4 failed {MAX_SKIPPED_STEPS} times.*nan.*lower the learning rate"):
        train(config(), tmp_path)
    assert (tmp_path / resume.FILE).read_bytes() == good[-1]
    snapshot = resume.load(tmp_path)
    assert snapshot["progress"].step == 3
    assert all(value.isfinite().all() for value in snapshot["model"].values() if value.is_floating_point())
    assert not (tmp_path / "result.json").exists()


def test_a_skipped_step_changes_neither_weights_nor_moments(tmp_path, spoil, monkeypatch):
    """With the batches that are spoilt taken out of the stream, the same run needs no skip and gives the same."""
    settings = config("backbone.dropout=0.0")
    spoil({3, 4}, math.nan, gradient=True)
    train(settings, tmp_path / "skipping")
    monkeypatch.undo()
    take = StepLoader.__next__
    drawn = []

    def take_others(self):
        drawn.append(None)
        if len(drawn) == 3:
            take(self), take(self)
        return take(self)

    monkeypatch.setattr(StepLoader, "__next__", take_others)
    train(settings, tmp_path / "without")
    one, other = (load_file(str(tmp_path / name / "model.safetensors")) for name in ("skipping", "without"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def one_layer():
    model = torch.nn.Linear(2, 2)
    group = {"params": [*model.parameters()], "hidden": False, "lr_mult": 1.0, "decays": True}
    return model, AdamW([group], 1e-3)


@pytest.mark.parametrize("place", ["weights", "moments"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_saved(tmp_path, place, value):
    model, optimizer = one_layer()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    trained = {"weight", "bias"}
    resume.save(tmp_path, resume.Progress(0, 1, 2), model, optimizer, trained)
    before = (tmp_path / resume.FILE).read_bytes()
    spoilt = model.bias if place == "weights" else optimizer.state[model.bias]["exp_avg_sq"]
    with torch.no_grad():
        spoilt[1] = value
    with pytest.raises(TrainingError, match=r"not finite after step 2; .*the snapshot of an earlier step is kept"):
        resume.save(tmp_path, resume.Progress(0, 2, 4), model, optimizer, trained)
    assert (tmp_path / resume.FILE).read_bytes() == before


def test_a_snapshot_holds_the_random_state_of_the_gpus(tmp_path, monkeypatch):
    model, optimizer = one_layer()
    states = {0: torch.arange(16, dtype=torch.uint8), 1: torch.ones(16, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [*states.values()])
    resume.save(tmp_path, resume.Progress(0, 1, 2), model, optimizer, {"weight"})
    restored = {}
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, index: restored.update({index: state}))
    resume.restore(resume.load(tmp_path), model, optimizer)
    assert restored.keys() == states.keys()
    assert all(torch.equal(restored[index], states[index]) for index in states)
