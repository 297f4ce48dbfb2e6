"""Losses, gradients, weights and moments that are not finite never reach the weights or the snapshot."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.io import jsonl
from mmrnn.training.distributed.checkpoint_writer import CheckpointWriter
from mmrnn.training.error import TrainingError
from mmrnn.training.reading.loader import StepLoader
from mmrnn.training.run import train
from mmrnn.training.saving import checkpoint_folder as folders
from mmrnn.training.saving.saved_run import SavedRun
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
        def loss(self, *arguments):
            calls.append(None)
            right, state = forward(self, *arguments)
            if len(calls) not in which:
                return right, state
            return FaultyGradient.apply(right, value) if gradient else right * value, state

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


@pytest.mark.parametrize(
    "gradient", [pytest.param(True, id="gradient"), pytest.param(False, id="loss", marks=pytest.mark.slow)]
)
def test_several_in_a_row_end_the_run_with_its_last_good_checkpoint(tmp_path, spoil, gradient, monkeypatch):
    # Each step is saved: the checkpoint before is waited for.
    monkeypatch.setattr(CheckpointWriter, "is_busy", False)
    spoil(range(4, 100), math.nan, gradient=gradient)
    with pytest.raises(TrainingError, match=r"step 4 failed 6 times.*nan.*lower the learning rate"):
        train(config("max_bad_steps=6", "save_every_seconds=0", "max_save_share=1"), tmp_path)
    last = folders.newest(tmp_path)
    saved = SavedRun.read(last)
    assert saved.progress.step == 3
    assert all(math.isfinite(loss) for loss in saved.counters["guard"]["losses"])
    records = jsonl.records(tmp_path / "bad_steps.jsonl")
    assert [record["step"] for record in records] == [4] * 6
    assert all(record["skipped"] and "is not finite" in record["fault"] for record in records)
    assert all(len(set(record["ids"][0])) == 2 for record in records)
    assert not (tmp_path / "result.json").exists()
    spoil([], 0.0, gradient=gradient)
    train(config("max_bad_steps=6", "save_every_seconds=0", "max_save_share=1"), tmp_path)
    assert not jsonl.records(tmp_path / "bad_steps.jsonl")
    assert [record["step"] for record in jsonl.records(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5, 6]


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
