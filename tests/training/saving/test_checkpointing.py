"""Policy of checkpoints: when, how many, which one a run resumes from, and what happens where there is no space."""

import errno
import json
from pathlib import Path

import pytest
from torch import nn

from mmrnn.config.error import ConfigError
from mmrnn.io.disk import DiskFullError
from mmrnn.io.versions import library_versions
from mmrnn.training.distributed import checkpoint_writer
from mmrnn.training.distributed.checkpoint import TrainingState
from mmrnn.training.distributed.world import World
from mmrnn.training.error import TrainingError
from mmrnn.training.optim import AdamW
from mmrnn.training.saving import checkpoint_folder as folders
from mmrnn.training.saving.checkpointing import Checkpoints, CheckpointSettings
from mmrnn.training.saving.saved_run import Progress, SavedRun, check_config, find_checkpoint

CONFIG = {"seed": 1, "stage": {"instruct": {"steps": 5}}, "workers": 0, "precision": "fp32"}


class Run:
    """Checkpoints of a small model, with a clock that stands still."""

    def __init__(self, out: Path, **settings):
        self.now, self.lines, self.exported = 0.0, [], []
        self.model = nn.Linear(2, 2)
        self.optimizer = AdamW([{"params": [*self.model.parameters()]}], 1e-3)
        self.out = out
        self.checkpoints = Checkpoints(
            out,
            World(),
            CONFIG,
            CheckpointSettings(**{"save_every_seconds": 0.0, "max_save_share": 1.0} | settings),
            say=self.lines.append,
            export=self.exported.append,
            clock=lambda: self.now,
        )

    def save(self, step, **more):
        state = TrainingState(self.model, self.optimizer, {"weight", "bias"})
        self.checkpoints.save(step, Progress(0, step, 2 * step), state, {"pending": [step]}, **more)

    def steps(self):
        return [folders.step_of(folder) for folder in folders.step_folders(self.out)]


def test_a_checkpoint_says_where_the_run_is(tmp_path):
    run = Run(tmp_path)
    run.save(3, wait=True)
    saved = SavedRun.read(folders.step_folder(tmp_path, 3))
    assert saved.progress == Progress(0, 3, 6)
    assert saved.counters == {"pending": [3]}
    assert saved.config == CONFIG
    assert len(saved.random) == 1
    assert saved.versions == library_versions()
    assert {"python", "torch"} <= saved.versions.keys()


def test_the_last_ones_and_those_for_good_are_kept(tmp_path):
    run = Run(tmp_path, keep_last=2, keep_every=3)
    with run.checkpoints:
        for step in range(1, 9):
            run.save(step)
    assert run.steps() == [3, 6, 7, 8]
    assert run.exported == [folders.step_folder(tmp_path, step) for step in (3, 6)]
    folders.remove_all(tmp_path)
    assert run.steps() == [3, 6]


def test_nothing_is_left_of_a_run_without_checkpoints_for_good(tmp_path):
    run = Run(tmp_path)
    run.save(1, wait=True)
    folders.remove_all(tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_counters_are_those_of_the_step_although_training_goes_on(tmp_path):
    run, counters = Run(tmp_path), {"losses": [1.0]}
    run.checkpoints.save(1, Progress(0, 1, 2), TrainingState(run.model, run.optimizer, {"weight", "bias"}), counters)
    counters["losses"].append(2.0)
    run.checkpoints.writer.wait()
    assert SavedRun.read(folders.step_folder(tmp_path, 1)).counters == {"losses": [1.0]}


def test_the_same_step_is_saved_once(tmp_path):
    run = Run(tmp_path)
    run.save(2, wait=True)
    before = (folders.step_folder(tmp_path, 2) / ".complete").stat().st_mtime_ns
    run.save(2, wait=True)
    assert (folders.step_folder(tmp_path, 2) / ".complete").stat().st_mtime_ns == before


def test_seconds_lie_between_two_checkpoints(tmp_path):
    run = Run(tmp_path, save_every_seconds=60.0)
    assert not run.checkpoints.due(1)
    run.now = 60.0
    assert run.checkpoints.due(1)
    run.save(1, wait=True)
    run.now = 119.0
    assert not run.checkpoints.due(2)
    run.now = 120.0
    assert run.checkpoints.due(2)
    assert run.checkpoints.due(2)


def test_saving_takes_no_more_than_its_share_of_the_run(tmp_path):
    run = Run(tmp_path, save_every_seconds=10.0, max_save_share=0.05)
    whole = run.checkpoints.writer.start

    def slow(*arguments):
        run.now += 4.0
        return whole(*arguments)

    run.checkpoints.writer.start = slow
    saved, spent = [], 0.0
    for step in range(1, 2000):
        run.now += 1.0
        if run.checkpoints.due(step):
            run.save(step, wait=True)
            saved.append(run.now)
            spent += 4.0
            # Nothing is known of the duration of the first.
            assert len(saved) == 1 or spent <= 0.05 * (run.now + 1e-9) + 4.0 * 0.05
    assert 20 <= len(saved) <= 26


def test_other_ranks_do_not_look_at_the_clock(tmp_path):
    run = Run(tmp_path)
    assert run.checkpoints.due(1)
    run.checkpoints.world = World(1, 2)
    assert not run.checkpoints.due(1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_saved(tmp_path, value):
    run = Run(tmp_path)
    run.save(1, wait=True)
    run.model.bias.data[1] = value
    with pytest.raises(TrainingError, match=r"not finite after step 2; .*the checkpoint of an earlier step is kept"):
        run.save(2)
    assert run.steps() == [1]
    assert folders.is_complete(folders.step_folder(tmp_path, 1))


@pytest.fixture
def full_disk(monkeypatch):
    """`full_disk(flag)`: writing tensors finds the disk full after some bytes, or no longer."""

    def fail(_, *, storage_writer, **__):
        (Path(storage_writer.path) / "__0_0.distcp").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def switch(flag):
        monkeypatch.setattr(checkpoint_writer.dcp, "save", fail) if flag else monkeypatch.undo()

    return switch


def test_a_full_disk_is_said_and_tried_again(tmp_path, full_disk):
    run = Run(tmp_path)
    run.save(1, wait=True)
    full_disk(True)
    run.save(2)
    run.save(3, wait=True)
    assert len(run.lines) == 2
    assert "no checkpoint is saved, and training continues: no space left for" in run.lines[0]
    assert "bytes are to be written" in run.lines[0]
    assert "bytes are free" in run.lines[0]
    assert run.steps() == [1]
    full_disk(False)
    run.save(3, wait=True)
    assert folders.newest(tmp_path) == folders.step_folder(tmp_path, 3)
    full_disk(True)
    run.save(4)
    run.save(5)
    run.save(6)
    with pytest.raises(DiskFullError, match="no space left"):
        run.save(7)
    assert run.steps() == [1, 3]
    assert folders.is_complete(folders.step_folder(tmp_path, 3))


def test_no_space_for_a_model_that_is_kept(tmp_path):
    run = Run(tmp_path, keep_every=2)

    def fail(folder):
        (folder / "half").touch()
        raise DiskFullError("no space left")

    run.checkpoints.export = fail
    run.save(2, wait=True)
    assert run.lines == ["no checkpoint is saved, and training continues: no space left"]
    assert run.steps() == []


def saved_steps(out, *steps):
    run = Run(out, keep_last=9)
    for step in steps:
        run.save(step, wait=True)
    return [folders.step_folder(out, step) for step in steps]


def test_a_run_resumes_from_the_last_whole_checkpoint(tmp_path):
    lines = []
    assert find_checkpoint(tmp_path, "auto", 2, lines.append) is None
    first, second, third, fourth = saved_steps(tmp_path, 1, 2, 3, 10)
    (fourth / ".complete").unlink()
    file = next(third.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-1])
    assert find_checkpoint(tmp_path, "auto", 2, lines.append) == second
    assert lines == [
        f"{tmp_path}/checkpoints: not written to the end, and removed: step_3, step_10; the run resumes from {second}"
    ]
    assert find_checkpoint(tmp_path, "auto", 2, lines.append) == second
    assert len(lines) == 1
    assert folders.step_folders(tmp_path) == [first, second]
    assert find_checkpoint(tmp_path, "auto", 1, lines.append) == second
    assert folders.step_folders(tmp_path) == [second]


def test_a_run_that_is_never_resumed_starts_anew(tmp_path):
    saved_steps(tmp_path, 1, 2)
    assert find_checkpoint(tmp_path, "never", 2, print) is None
    assert folders.step_folders(tmp_path) == []


def test_a_run_starts_from_another_until_it_has_its_own(tmp_path):
    _, second = saved_steps(tmp_path / "a", 1, 2)
    first = folders.step_folder(tmp_path / "a", 1)
    assert find_checkpoint(tmp_path / "b", str(tmp_path / "a"), 2, print) == second
    assert find_checkpoint(tmp_path / "b", str(first), 2, print) == first
    (own,) = saved_steps(tmp_path / "b", 4)
    assert find_checkpoint(tmp_path / "b", str(first), 2, print) == own
    with pytest.raises(ConfigError, match=r"resume: .*nowhere holds no whole checkpoint; name a run"):
        find_checkpoint(tmp_path / "c", str(tmp_path / "nowhere"), 2, print)


def test_a_checkpoint_that_is_half_removed_is_not_whole(tmp_path):
    (folder,) = saved_steps(tmp_path, 1)
    (folder / ".complete").unlink()
    assert folders.newest(tmp_path) is None


def test_another_configuration_is_refused_by_its_names():
    saved = SavedRun(progress=Progress(), config=CONFIG)
    lines = []
    free = {
        "workers": 2,
        "log_every": 3,
        "strategy": {"_target_": "x"},
        "choices": {"strategy": "ddp"},
        "device": "cpu",
        "compile": True,
        "backbone": {"grad_checkpointing": 2},
    }
    check_config(saved, Path("step_1"), CONFIG | free, lines.append)
    assert lines == []
    check_config(saved, Path("step_1"), CONFIG | {"precision": "bf16"}, lines.append)
    assert lines == ["the run is resumed with precision: fp32 -> bf16: its losses will differ by rounding"]
    other = CONFIG | {"stage": {"instruct": {"steps": 6}}, "encoder": {"depth": 2}}
    with pytest.raises(
        ConfigError, match=r"\(it differs in encoder.depth, stage.instruct.steps\); repeat its overrides"
    ):
        check_config(saved, Path("step_1"), other, lines.append)


def test_other_versions_are_said():
    lines = []
    saved = SavedRun(progress=Progress(), config=CONFIG, versions={**library_versions(), "torch": "1.0"})
    check_config(saved, Path("step_1"), CONFIG, lines.append)
    (line,) = lines
    assert line.startswith(f"step_1 was saved with other versions (torch 1.0 -> {library_versions()['torch']}): losses")


@pytest.mark.parametrize(
    "text", ["half", "[]", "{}", '{"progress": {"stage": 0, "step": -1, "samples": 0}, "config": {}, "random": []}']
)
def test_a_damaged_state_is_named(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ValueError, match=rf"{tmp_path}/state.json is damaged .*; delete {tmp_path} to resume"):
        SavedRun.read(tmp_path)


def test_what_is_read_is_what_was_written(tmp_path):
    saved = SavedRun(progress=Progress(1, 2, 3), config=CONFIG, numbers={"a": 1}, random=({"cpu": "x"},), counters={})
    (tmp_path / "state.json").write_text(saved.to_text())
    assert SavedRun.read(tmp_path) == saved
    assert json.loads((tmp_path / "state.json").read_text())["progress"] == {"stage": 1, "step": 2, "samples": 3}
