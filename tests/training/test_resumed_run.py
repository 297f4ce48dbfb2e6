"""A run that was stopped is resumed as if it had not been."""

import pytest
import torch

import mmrnn
from mmrnn.config.error import ConfigError
from mmrnn.evaluation.reports.run_folder import read_result
from mmrnn.io import jsonl
from mmrnn.training import run
from mmrnn.training.distributed.checkpoint_writer import CheckpointWriter
from mmrnn.training.run import train
from mmrnn.training.saving import checkpoint_folder as folders
from mmrnn.training.saving.checkpointing import Checkpoints
from mmrnn.training.saving.run_clock import CLOCK
from tests.training.small_run import config, weights_of


def repeatable(record):
    """A record of the log without what depends on the machine."""
    return {name: value for name, value in record.items() if name != "measured"}


class Stopped(Exception):
    """Stands for a kill."""


def stop_now(*_, **__):
    raise Stopped


def test_the_time_of_an_interrupted_run_is_that_of_all_its_parts(tmp_path):
    cfg = config("evaluate.samples=0", "stage.instruct.steps=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "save", stop_now)
        with pytest.raises(Stopped):
            train(cfg, tmp_path)
    (tmp_path / CLOCK).write_text("1000.0\n")
    train(cfg, tmp_path)
    assert 1000 < read_result(tmp_path)["seconds"] < 1100


@pytest.mark.parametrize("where", [pytest.param("between", marks=pytest.mark.slow), "while writing"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, where):
    stages = ("stage=align_then_instruct", "stage.align.steps=2", "stage.align.batch_size=4")
    cfg = config("evaluate.samples=0", "save_every_seconds=0", "max_save_share=1", *stages)
    train(cfg, tmp_path / "whole")
    save, calls = Checkpoints.save, []

    def stop(self, step, progress, *rest, **more):
        calls.append(progress)
        if len(calls) == 5:
            if where == "while writing":
                folder = folders.step_folder(self.out, step)
                folder.mkdir()
                (folder / "__0_0.distcp").write_bytes(b"half")
            raise Stopped
        save(self, step, progress, *rest, **more)

    monkeypatch.setattr(Checkpoints, "save", stop)
    monkeypatch.setattr(CheckpointWriter, "is_busy", False)
    with pytest.raises(Stopped):
        train(cfg, tmp_path / "parts")
    monkeypatch.undo()
    assert (calls[-1].stage, calls[-1].step) == (1, 3)
    train(cfg, tmp_path / "parts")
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    logs = [[*map(repeatable, jsonl.records(tmp_path / name / "log.jsonl"))] for name in ("whole", "parts")]
    assert logs[0] == logs[1]
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_what_may_change_does_when_a_run_is_resumed(tmp_path, capsys):
    short = ("evaluate.samples=0", "stage.instruct.steps=2", "backbone.dropout=0.0")
    train(config(*short), tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "save", stop_now)
        with pytest.raises(Stopped):
            train(config(*short), tmp_path / "parts")
    train(config(*short, "workers=1", "log_every=5", "precision=fp32", "keep_last=1"), tmp_path / "parts")
    assert "the run is resumed with precision: auto -> fp32" in capsys.readouterr().err
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all((whole[name] - parts[name]).abs().max() < 1e-2 for name in whole)
    # A finished run is left as it is, whatever of this is changed.
    train(config(*short, "log_every=7"), tmp_path / "parts")


def test_checkpoints_for_good_load_like_any_model_and_start_other_runs(tmp_path):
    short = ("evaluate.samples=0", "stage.instruct.steps=4", "keep_every=2")
    train(config(*short), tmp_path / "one")
    (second, fourth) = (folders.step_folder(tmp_path / "one", step) for step in (2, 4))
    assert folders.step_folders(tmp_path / "one") == [second, fourth]
    assistant, last = mmrnn.load(second), weights_of(tmp_path / "one")
    assert isinstance(assistant.ask(None, "what?", max_new_tokens=3), str)
    assert all(torch.equal(value, last[name]) for name, value in weights_of(fourth).items())
    assert not all(torch.equal(value, last[name]) for name, value in weights_of(second).items())
    train(config(*short, f"resume={second}"), tmp_path / "two")
    again = weights_of(tmp_path / "two")
    assert all(torch.equal(last[name], again[name]) for name in last)
    logs = [[*map(repeatable, jsonl.records(tmp_path / name / "log.jsonl"))] for name in ("one", "two")]
    assert logs[0] == logs[1]
    with pytest.raises(ConfigError, match=r"resume: .*step_2 belongs to another .*differs in stage.instruct.steps"):
        train(config("evaluate.samples=0", "stage.instruct.steps=5", f"resume={second}"), tmp_path / "three")


def test_a_run_can_start_anew_in_its_folder(tmp_path):
    short = ("evaluate.samples=0", "stage.instruct.steps=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "save", stop_now)
        with pytest.raises(Stopped):
            train(config(*short, "seed=3"), tmp_path / "run")
    with pytest.raises(ConfigError, match="differs in seed"):
        train(config(*short), tmp_path / "run")
    train(config(*short, "resume=never"), tmp_path / "run")
    train(config(*short), tmp_path / "fresh")
    one, other = weights_of(tmp_path / "run"), weights_of(tmp_path / "fresh")
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ConfigError, match="differs in seed"):
        train(config(*short, "resume=never", "seed=4"), tmp_path / "run")
