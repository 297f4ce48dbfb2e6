"""A sweep that is killed three times, one of two processes, and an extended one: all end as a whole one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmrnn.evaluation.reports.run_folder import LOG, RESULT
from mmrnn.evaluation.sweeps.results_file import TIMES
from mmrnn.io import jsonl

ROOT = Path(__file__).parents[2]
SWEEP = (
    *("model=visualrwkv6_tiny", "encoder=patch_tiny", "data.scenes=8", "data.rounds=2", "data.kinds=[count,digit]"),
    *("stage.instruct.steps=20", "stage.instruct.batch_size=4", "max_length=200", "precision=fp32", "device=cpu"),
    *("evaluate.samples=6", "evaluate.every=0", "evaluate.max_new_tokens=4", "tracker=none", "workers=0"),
    *("backbone.dropout=0.1", "save_every_seconds=0", "max_save_share=1", "log_every=2"),
    *("connector=linear,mlp", "seed=0,1,2"),
)


def start(folder, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    command = [sys.executable, "-m", "mmrnn", "train", "-m", *SWEEP, f"out={folder}", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    """Exit code and output of a sweep, once it has ended."""
    try:
        out, _ = process.communicate(timeout=500)
    finally:
        process.kill()
    return process.returncode, out


def rows(folder):
    """The table of results, but for times."""
    found = jsonl.records(folder / "results.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMES} for row in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Rows of a sweep that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    code, out = finish(start(folder))
    assert code == 0, out
    assert len(rows(folder)) == 6
    return rows(folder)


def records(folder):
    return sum(len(jsonl.records(path)) for path in folder.glob(f"*/{LOG}"))


@pytest.mark.slow
def test_a_sweep_that_is_killed_three_times_ends_as_a_whole_one(tmp_path, whole):
    moments = random.Random(0)
    for _ in range(3):
        process, more = start(tmp_path), records(tmp_path) + moments.randint(3, 14)
        end = time.monotonic() + 300
        try:
            while records(tmp_path) < more:
                assert process.poll() is None, "too few steps for so many kills"
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 0.3))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    finished = len([*tmp_path.glob(f"*/{RESULT}")])
    assert finished < 6
    code, out = finish(start(tmp_path))
    assert code == 0, out
    assert out.count("finished before: ") == finished
    assert rows(tmp_path) == whole
    before = jsonl.records(tmp_path / "results.jsonl")

    code, out = finish(start(tmp_path, "seed=0,1,2,3"))
    assert code == 0, out
    assert out.count("finished before: ") == 6
    after = jsonl.records(tmp_path / "results.jsonl")
    assert [row for row in after if row["seed"] != 3] == before
    assert len(after) == 8


@pytest.mark.slow
def test_two_processes_finish_a_sweep_together(tmp_path, whole):
    ends = [finish(process) for process in [start(tmp_path) for _ in range(2)]]
    outputs = [out for _, out in ends]
    assert [code for code, _ in ends] == [0, 0], "\n".join(outputs)
    assert rows(tmp_path) == whole
    # Every job is trained by one of them, and the other one says so.
    assert all("left alone: " in out or "finished before: " in out for out in outputs)
    trained = [
        line for out in outputs for line in out.splitlines() if "parameters, " in line and "of them trained" in line
    ]
    assert len(trained) == 6
