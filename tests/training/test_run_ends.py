"""Ends of a run: failures are noted, and folders belong to one process."""

import json
import subprocess
import sys
import time

import pytest

from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.evaluation.reports.run_folder import FAILURE, LOG, RESULT
from mmrnn.io import jsonl
from mmrnn.io.disk import DiskFullError
from mmrnn.io.lock import FolderInUseError
from mmrnn.training import run
from mmrnn.training.run import train
from mmrnn.training.saving import checkpoint_folder as folders
from mmrnn.training.saving.saved_run import STATE

SMALL = (
    "model=visualrwkv6_tiny",
    "encoder=patch_tiny",
    "data.scenes=12",
    "data.rounds=4",
    "stage.instruct.batch_size=2",
    "evaluate.samples=0",
    "log_every=1",
    "save_every_seconds=0",
)
STEPS = "stage.instruct.steps"

TRAIN = """
import sys, pathlib
from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.training.run import train
train(plain(compose(*sys.argv[2:])), pathlib.Path(sys.argv[1]))
"""


def config(*overrides):
    return plain(compose(*SMALL, *overrides))


def start(folder, *overrides):
    return subprocess.Popen([sys.executable, "-c", TRAIN, str(folder), *SMALL, *overrides], stderr=subprocess.PIPE)


def test_a_failure_is_noted_until_the_next_attempt(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise DiskFullError("no space left")

    monkeypatch.setattr(run, "save", fail)
    with pytest.raises(DiskFullError):
        train(config(f"{STEPS}=1"), tmp_path)
    failure = json.loads((tmp_path / FAILURE).read_text())
    assert (failure["error"], failure["message"]) == ("DiskFullError", "no space left")
    assert folders.newest(tmp_path) == folders.step_folder(tmp_path, 1)
    monkeypatch.undo()
    train(config(f"{STEPS}=1"), tmp_path)
    assert not (tmp_path / FAILURE).exists()
    assert (tmp_path / RESULT).is_file()


@pytest.fixture
def full_log(monkeypatch):
    """`full_log(attempts)`: so many attempts to write a record of a step after the first one find the disk full."""
    append = jsonl.append

    def fill(attempts):
        left = [attempts]

        def fail(path, *records):
            if records[0]["step"] > 1 and left[0]:
                left[0] -= 1
                raise DiskFullError("no space left")
            append(path, *records)

        monkeypatch.setattr(jsonl, "append", fail)

    return fill


def test_records_wait_for_space(tmp_path, full_log, capsys):
    full_log(2)
    train(config(f"{STEPS}=5", "keep_every=2"), tmp_path)
    assert [record["step"] for record in jsonl.records(tmp_path / LOG)] == [1, 2, 3, 4, 5]
    stderr = capsys.readouterr().err
    assert stderr.count("records are kept in memory until they can be written, and training continues: no space") == 1
    assert stderr.count("no checkpoint is saved, and training continues: no space left") == 1


def test_a_run_ends_when_there_is_no_space_for_its_records(tmp_path, full_log):
    """No checkpoint is saved whose records are not in the log: the resumed run writes them."""
    full_log(99)
    with pytest.raises(DiskFullError):
        train(config(f"{STEPS}=6", "max_save_share=1"), tmp_path)
    assert folders.newest(tmp_path) == folders.step_folder(tmp_path, 1)
    assert [record["step"] for record in jsonl.records(tmp_path / LOG)] == [1]
    full_log(0)
    train(config(f"{STEPS}=6", "max_save_share=1"), tmp_path)
    assert [record["step"] for record in jsonl.records(tmp_path / LOG)] == [1, 2, 3, 4, 5, 6]


def test_a_run_without_checkpoints_ends_with_its_records(tmp_path, full_log):
    full_log(99)
    with pytest.raises(DiskFullError):
        train(config(f"{STEPS}=2", "save_every_seconds=1000"), tmp_path)
    assert not (tmp_path / RESULT).exists()


def contents(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_mistake_leaves_the_run_in_the_folder_alone(tmp_path):
    train(config(f"{STEPS}=1"), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="another configuration"):
        train(config(f"{STEPS}=2"), tmp_path)
    assert contents(tmp_path) == before


def test_damaged_files_are_named(tmp_path):
    cfg = config(f"{STEPS}=1")
    train(cfg, tmp_path)
    (tmp_path / RESULT).write_text("{}")
    with pytest.raises(ValueError, match=rf"{tmp_path / RESULT} is no result of a run: it lacks 'config'; delete it"):
        train(cfg, tmp_path)
    (tmp_path / RESULT).unlink()
    (tmp_path / LOG).write_text("{]\n")
    with pytest.raises(ValueError, match=rf"{tmp_path / LOG} is damaged: line 1"):
        train(cfg, tmp_path)
    (tmp_path / LOG).unlink()
    state = folders.step_folder(tmp_path, 1) / STATE
    state.parent.mkdir(parents=True)
    state.write_bytes(b"half")
    folders.mark_complete(state.parent)
    with pytest.raises(ValueError, match=rf"{state} is damaged .*; delete {state.parent} to resume from an earlier"):
        train(cfg, tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / RESULT).write_text("{}")
    with pytest.raises(ConfigError, match=rf"{foreign} holds result\.json without config\.yaml"):
        train(cfg, foreign)
    assert (foreign / RESULT).read_text() == "{}"


@pytest.mark.slow
def test_the_second_run_in_a_folder_is_told_of_the_first(tmp_path):
    first = start(tmp_path, f"{STEPS}=1000")
    try:
        while not (tmp_path / LOG).is_file():
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.05)
        for other in (f"{STEPS}=1000", f"{STEPS}=2"):
            with pytest.raises(FolderInUseError, match=f"in use by process {first.pid} "):
                train(config(other), tmp_path)
        assert not (tmp_path / FAILURE).exists()
    finally:
        first.kill()
        first.communicate()


@pytest.mark.parametrize("file", ["null", "missing.json"])
def test_data_that_cannot_be_read_is_told_before_a_model_is_built(tmp_path, monkeypatch, file):
    monkeypatch.setattr("mmrnn.training.build.make_step", None)
    cfg = plain(compose("model=visualrwkv6_tiny", "data=llava", f"data.file={file}"))
    with pytest.raises(ConfigError, match=r"data\.file"):
        run.train(cfg, tmp_path / "run")
