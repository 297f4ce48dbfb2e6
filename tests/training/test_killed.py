"""Runs that are killed or stopped by a signal, and resumed: they end as one that was not."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.evaluation.reports.run_folder import LOG, RESULT
from mmrnn.io import jsonl
from mmrnn.training.distributed.world import start_world
from mmrnn.training.ends import StoppedRun
from mmrnn.training.run import train
from mmrnn.training.saving import checkpoint_folder as folders

SMALL = (
    "model=visualrwkv6_tiny",
    "encoder=patch_tiny",
    "data.scenes=12",
    "data.rounds=4",
    "stage.instruct.batch_size=4",
    "stage.instruct.steps=80",
    "backbone.dropout=0.1",
    "evaluate.samples=0",
    "save_every_seconds=0",
    "max_save_share=1",
    "log_every=3",
    "device=cpu",
)
SAME = ("step", "stage", "loss", "lr", "skipped_steps", "dropped")
"""Fields of a record that do not tell the time."""


def config(*overrides):
    return plain(compose(*SMALL, *overrides))


class Life:
    """Processes of one attempt at a run. They are forked: to import everything anew takes longer than the run."""

    def __init__(self, out, cfg, ranks=1):
        with socket.socket() as found:
            found.bind(("localhost", 0))
            port = found.getsockname()[1]
        context = mp.get_context("fork")
        self.out = out
        self.log_before = self.log_file()
        self.ranks = [context.Process(target=_life, args=(rank, ranks, port, cfg, out)) for rank in range(ranks)]
        for process in self.ranks:
            process.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.ranks:
            process.kill()
            process.join()

    def wait(self, timeout=120):
        """Exit codes."""
        for process in self.ranks:
            process.join(timeout)
        return [process.exitcode for process in self.ranks]

    def wait_for_steps(self, number, timeout=120):
        """Wait until the attempt handles signals and the log has so many records, or the run has ended."""
        end = time.monotonic() + timeout
        while self.ranks[0].is_alive() and (
            self.log_file() == self.log_before or len(jsonl.records(self.out / LOG)) < number
        ):
            assert time.monotonic() < end
            time.sleep(0.01)

    def log_file(self):
        """Number of the file that is the log, which every attempt replaces; 0: there is none."""
        return (self.out / LOG).stat().st_ino if (self.out / LOG).exists() else 0


def _life(rank, ranks, port, cfg, out):
    code = 1
    names = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    if ranks > 1:
        os.environ.update({name: str(value) for name, value in names.items()})
    try:
        with start_world(timeout=60) as world:
            train(cfg, out, world=world)
        code = 0
    except StoppedRun as stop:
        code = stop.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def same_run(one, other):
    weights = [load_file(str(out / "model.safetensors")) for out in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    logs = [[{name: record[name] for name in SAME} for record in jsonl.records(out / LOG)] for out in (one, other)]
    assert logs[0] == logs[1]
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_is_killed_ten_times_ends_as_a_whole_one(tmp_path, workers):
    cfg = config(f"workers={workers}")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with Life(whole, cfg) as life:
        assert life.wait() == [0]
    moments, kills = random.Random(workers), 0
    while kills < 10:
        with Life(parts, cfg) as life:
            life.wait_for_steps(len(jsonl.records(parts / LOG)) + 1)
            time.sleep(moments.uniform(0, 0.3))
            assert life.ranks[0].is_alive(), "too few steps for so many kills"
        kills += 1
    with Life(parts, cfg) as life:
        assert life.wait() == [0]
    same_run(whole, parts)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_of_two_ranks_of_which_one_is_killed_ends_as_a_whole_one(tmp_path, strategy):
    cfg = config(f"strategy={strategy}", "workers=2", "stage.instruct.steps=24")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with Life(whole, cfg, 2) as life:
        assert life.wait() == [0, 0]
    moments = random.Random(strategy)
    for victim in (1, 0, 1):
        with Life(parts, cfg, 2) as life:
            life.wait_for_steps(len(jsonl.records(parts / LOG)) + 1)
            time.sleep(moments.uniform(0, 0.3))
            assert life.ranks[victim].is_alive(), "too few steps for so many kills"
            life.ranks[victim].kill()
            codes = life.wait(60)
            assert codes[victim] == -signal.SIGKILL
            assert codes[1 - victim] == 1
    with Life(parts, cfg, 2) as life:
        assert life.wait() == [0, 0]
    same_run(whole, parts)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "number"), [(1, signal.SIGTERM), (1, signal.SIGUSR1), (2, signal.SIGTERM)])
def test_a_signal_costs_no_step(tmp_path, ranks, number):
    cfg = config("save_every_seconds=10000", "workers=2", "stage.instruct.steps=40", "log_every=1")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with Life(whole, cfg, ranks) as life:
        assert life.wait() == [0] * ranks
    for after in (5, 12):
        with Life(parts, cfg, ranks) as life:
            life.wait_for_steps(after)
            for process in life.ranks:
                os.kill(process.pid, number)
            assert life.wait(60) == [143] * ranks
        steps = jsonl.records(parts / LOG)[-1]["step"]
        assert folders.step_of(folders.newest(parts)) in (steps, steps + 1)
        assert steps >= after
    with Life(parts, cfg, ranks) as life:
        assert life.wait() == [0] * ranks
    same_run(whole, parts)


@pytest.mark.slow
def test_a_run_moves_between_strategies_and_numbers_of_ranks(tmp_path):
    """FSDP on two ranks, one process, DDP on two ranks; the first losses after each move are those of one process."""
    knobs = ("optimizer=adamw", "backbone.dropout=0.0", "precision=fp32", "save_every_seconds=10000", "log_every=1")
    steps, whole, parts = "stage.instruct.steps=60", tmp_path / "whole", tmp_path / "parts"
    with Life(whole, config(*knobs, steps)) as life:
        assert life.wait() == [0]
    moved = []
    for strategy, ranks, until in (("fsdp", 2, 3), ("single", 1, 7), ("ddp", 2, 60)):
        with Life(parts, config(*knobs, steps, f"strategy={strategy}"), ranks) as life:
            life.wait_for_steps(until)
            if until < 60:
                for process in life.ranks:
                    os.kill(process.pid, signal.SIGTERM)
            assert life.wait(120) == [143 if until < 60 else 0] * ranks
        moved.append(len(jsonl.records(parts / LOG)))
    assert moved[0] < moved[1] < moved[2] == 60, "too few steps to stop between them"
    one, other = ([record["loss"] for record in jsonl.records(out / LOG)] for out in (whole, parts))
    for first in (0, *moved[:2]):
        assert other[first : first + 2] == pytest.approx(one[first : first + 2], rel=1e-6), first


@pytest.mark.slow
def test_a_signal_ends_an_evaluation(tmp_path):
    cfg = config(
        "save_every_seconds=10000", "stage.instruct.steps=4", "log_every=2", "evaluate.samples=30", "evaluate.every=2",
        "evaluate.batch_size=1",
    )  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with Life(whole, cfg) as life:
        assert life.wait() == [0]
    for steps in (0, 1, 2):
        with Life(parts, cfg) as life:
            life.wait_for_steps(steps)
            time.sleep(0.5)
            os.kill(life.ranks[0].pid, signal.SIGTERM)
            assert life.wait(60) == [143]
        assert not (parts / RESULT).exists()
    with Life(parts, cfg) as life:
        assert life.wait() == [0]
    same_run(whole, parts)


FULL = """
import subprocess, sys
from pathlib import Path
from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.io.disk import DiskFullError
from mmrnn.training.saving import checkpoint_folder as folders
from mmrnn.training.run import train
out, small = Path(sys.argv[1]), sys.argv[2:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(out)], check=True)
cfg = plain(compose(*small, "stage.instruct.steps=12", "log_every=1"))
try:
    train(cfg, out / "run")
except DiskFullError as error:
    print("ended:", error)
last = folders.newest(out / "run")
print("last:", last.name, "of", [folder.name for folder in folders.step_folders(out / "run")])
subprocess.run(["mount", "-o", "remount,size=30m", str(out)], check=True)
train(cfg, out / "run")
print("finished:", (out / "run" / "result.json").is_file())
"""


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], check=False).returncode:
        pytest.skip("needs `unshare -rm`, for a disk of its own")
    command = [unshare, "-rm", sys.executable, "-c", FULL, str(tmp_path), *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    ended, last, finished = done.stdout.splitlines()
    assert "no space left for" in ended
    assert "bytes are to be written" in ended
    assert last == "last: step_1 of ['step_1']"
    assert finished == "finished: True"
    assert done.stderr.count("no checkpoint is saved, and training continues") == 3
