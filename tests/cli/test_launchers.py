"""Sweeps by Hydra's plug-ins: joblib, submitit on this machine, Optuna."""

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from signal import Signals

import pytest

from mmrnn.evaluation.reports.run_folder import FAILURE, LOG
from mmrnn.evaluation.reports.sweep_file import read_plan
from mmrnn.evaluation.sweeps.job_status import job_states
from mmrnn.io import jsonl
from mmrnn.training.saving.checkpoint_folder import COMPLETE, FOLDER, PREFIX

ROOT = Path(__file__).parents[2]
TINY = (
    *("model=visualrwkv6_tiny", "encoder=patch_tiny", "data.scenes=4", "data.rounds=1", "data.kinds=[count,digit]"),
    *("stage.instruct.steps=2", "stage.instruct.batch_size=2", "max_length=200", "precision=fp32", "device=cpu"),
    *("evaluate.samples=4", "evaluate.every=0", "evaluate.max_new_tokens=2", "tracker=none"),
)


def plug_in(name, package):
    found = find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{name}")
    return pytest.mark.skipif(not found, reason=f"needs {package}: pip install {package}")


def command(folder, *words):
    """Arguments of `subprocess` for a sweep in a folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "mmrnn", "train", "-m", *TINY, "out=s", *words]
    return {"args": words, "cwd": folder, "env": environment, "text": True}


def train(folder, *words):
    return subprocess.run(**command(folder, *words), capture_output=True, timeout=400)


def wait_until(condition):
    end = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_alive(group):
    """Return True while a process of the group exists."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


LAUNCHERS = [
    pytest.param(
        ("joblib", "hydra.launcher.n_jobs=2"), marks=plug_in("hydra_joblib_launcher", "hydra-joblib-launcher")
    ),
    pytest.param(
        ("submitit_local", "hydra.launcher.timeout_min=5"),
        marks=plug_in("hydra_submitit_launcher", "hydra-submitit-launcher"),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher(tmp_path, launcher):
    """Jobs run elsewhere, on one thread each, with loaders of their own; an added seed runs alone."""
    name, *knobs = launcher
    words = [f"hydra/launcher={name}", *knobs, "batching=bucketed", "workers=1", "seed=0,1"]
    done = train(tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "s: 2 finished; results: s/results.jsonl" in done.stdout
    first = jsonl.records(tmp_path / "s/results.jsonl")
    assert [row["seed"] for row in first] == [0, 1]
    assert {row["threads"] for row in first} == {1}
    if name == "joblib":  # submitit has a log for each
        told = [line for line in done.stderr.splitlines() if " s; report: " in line]
        assert sorted(line.partition(": ")[0] for line in told) == sorted(f"s/{row['job']}" for row in first)

    again = train(tmp_path, *words[:-1], "seed=0,1,2")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("finished before: ") == 2
    rows = jsonl.records(tmp_path / "s/results.jsonl")
    assert rows[:2] == first, "they were not touched"
    assert [row["seed"] for row in rows] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failure_elsewhere(tmp_path, launcher):
    """A job whose loss is not finite: the other one runs, and the last line names it."""
    name, *knobs = launcher
    done = train(
        tmp_path, f"hydra/launcher={name}", *knobs, "seed=0", "max_bad_steps=1", "stage.instruct.lr=1e30,0.005"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    [failed] = [path.parent.name for path in (tmp_path / "s").glob(f"*/{FAILURE}")]
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"mmrnn: 1 of 2 jobs are not finished: {failed} (stage.instruct.lr=1e+30) failed: TrainingError"
    )
    [row] = jsonl.records(tmp_path / "s/results.jsonl")
    assert row["stage.instruct.lr"] == 0.005


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "number"), [(os.kill, Signals.SIGTERM), (os.kill, Signals.SIGKILL), (os.killpg, Signals.SIGTERM)]
)
@plug_in("hydra_joblib_launcher", "hydra-joblib-launcher")
def test_workers_stop_with_their_parent(tmp_path, send, number):
    """Each saves a checkpoint, and starts no other job; the signal may have reached them, too."""
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1,2,3", "stage.instruct.steps=100000"]
    folder = tmp_path / "s"
    with (tmp_path / "output.txt").open("w") as output:
        made = command(tmp_path, *words)
        process = subprocess.Popen(**made, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until(lambda: len([*folder.glob(f"*/{LOG}")]) == 2)
        send(process.pid, number)
        process.wait()
        plan = read_plan(folder)
        wait_until(lambda: all(one.state != "running" for one in job_states(folder, plan)))
        states = [*job_states(folder, plan)]
        assert sorted(one.state for one in states) == ["not begun", "not begun", "stopped", "stopped"]
        for one in states:
            if one.state == "stopped":
                assert "stopped by SIGTERM" in one.reason
                assert [*(one.result / FOLDER).glob(f"{PREFIX}*/{COMPLETE}")]
        wait_until(lambda: not is_alive(process.pid))
    finally:
        if is_alive(process.pid):
            os.killpg(process.pid, Signals.SIGKILL)


@pytest.mark.slow
@plug_in("hydra_optuna_sweeper", "hydra-optuna-sweeper")
def test_optuna(tmp_path):
    """A search over a rate; trials whose loss is not finite fail, and the study goes on."""
    search = [f"hydra.sweeper.{knob}" for knob in ("n_trials=4", "n_jobs=1", "sampler.seed=1")]
    done = train(
        tmp_path,
        "hydra/sweeper=optuna",
        *search,
        "max_bad_steps=1",
        "stage.instruct.lr=choice(0.005,1e30)",
        "seed=range(0,100)",
    )
    folder = tmp_path / "s"
    states = {path.parent.name: (path.parent / FAILURE).exists() for path in folder.glob("*/job.json")}
    assert len(states) == 4, done.stdout + done.stderr
    failed = [name for name, bad in states.items() if bad]
    assert 0 < len(failed) < 4
    assert done.returncode == 1
    assert "best_value" in (folder / "optimization_results.yaml").read_text()
    rows = jsonl.records(folder / "results.jsonl")
    assert {row["job"] for row in rows} == states.keys() - {*failed}
    assert all(0 <= row["seed"] < 100 for row in rows)
    assert all(name in done.stderr.splitlines()[-1] for name in failed)
