"""Files of a sweep's folder, damaged: each is named with a way out."""

import json

import pytest

from mmrnn.config.error import ConfigError
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.reports.comparison import find_runs
from mmrnn.evaluation.reports.run_folder import FAILURE, LOG, RESULT, write_failure
from mmrnn.evaluation.reports.sweep_file import SWEEP, differences, read_plan, record_plan
from mmrnn.evaluation.sweeps.job_status import JOB, begin_job, job_states, job_status
from mmrnn.evaluation.sweeps.results_file import value_of, write_results
from mmrnn.io.lock import LOCK

PLAN = SweepPlan(
    card="mine",
    overrides=["model=a"],
    grid={"seed": ["1", "2"]},
    vary={"prompt": {"last": {"a.b": 1.5}}},
    contrasts=[{"group": "prompt", "option": "last", "against": "first"}],
    command=["sweep=mine", "model=a"],
    jobs={"job_a": ["model=a", "seed=1"], "job_b": ["model=a", "seed=2"]},
)


def test_a_plan_is_read_as_it_was_written(tmp_path):
    assert read_plan(tmp_path) is None
    assert record_plan(tmp_path / "s", PLAN) == PLAN
    found = read_plan(tmp_path / "s")
    assert not differences(PLAN, found)
    assert (found.jobs, found.command, found.grid) == (PLAN.jobs, PLAN.command, PLAN.grid)


DAMAGED = (
    "",
    "[1]",
    "jobs: [1]",
    "jobs: {a: 3}",
    "jobs: {a: [3]}",
    "card: [",
    "other: 1",
    "a: &b [1]\nc: *b",
    "card: 3",
)


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_plan_is_named(tmp_path, text):
    (tmp_path / SWEEP).write_text(text)
    with pytest.raises(ConfigError, match=r"sweep\.yaml is (damaged|no configuration)") as raised:
        read_plan(tmp_path)
    assert "another folder" in str(raised.value)


def test_states_of_jobs(tmp_path):
    def state(name="job_a"):
        return job_status(tmp_path / name, PLAN).state

    folder = tmp_path / "job_a"
    assert state() == "not begun"
    begin_job(folder, ["model=a", "seed=1"])
    assert state() == "stopped"
    write_failure(folder, ValueError("no data"), ["seed=1"])
    assert (state(), job_status(folder, PLAN).reason) == ("failed", "ValueError: no data")
    write_failure(folder, KeyboardInterrupt())
    assert state() == "stopped"
    (folder / FAILURE).write_text("{")
    assert state() == "failed"
    assert "failed.json is damaged" in job_status(folder, PLAN).reason
    (folder / RESULT).write_text("{}")
    assert state() == "finished"
    assert str(job_status(folder, PLAN)) == "job_a (seed=1)"
    with pytest.raises(ValueError, match=r"result\.json is no result of a run"):
        write_results(tmp_path, PLAN)


def test_jobs_that_are_not_planned_come_last(tmp_path):
    begin_job(tmp_path / "job_0", ["lr=0.1"])
    assert [(one.name, one.overrides) for one in job_states(tmp_path, PLAN)] == [
        *PLAN.jobs.items(),
        ("job_0", ["lr=0.1"]),
    ]


@pytest.mark.parametrize("note", ["", "{}", "[]", '{"overrides": [1], "run": "."}', '{"overrides": [], "run": "/etc"}'])
def test_a_damaged_note_is_named(tmp_path, note):
    (tmp_path / "job_a").mkdir()
    (tmp_path / "job_a" / JOB).write_text(note)
    with pytest.raises(ValueError, match=r"job\.json is damaged.*; delete it, and repeat the command of the sweep"):
        job_status(tmp_path / "job_a", PLAN)


def test_a_report_names_the_job_of_a_run_without_a_result(tmp_path):
    record_plan(tmp_path, PLAN)
    for name in ("job_b", "job_a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / LOCK).touch()
    (tmp_path / "job_a" / LOG).write_text(json.dumps({"step": 1}) + "\n")
    _, unfinished = find_runs(tmp_path)
    assert [run.folder.name for run in unfinished] == ["job_a", "job_b"]
    assert unfinished[1].reason.endswith("without a word (killed, or the machine went down) (seed=2)")


def test_values_of_overrides():
    words = ["a=1", "a=1e-3", "a=0.5", "a=true", "a=null", "a=x", "a='x, y'", "a=[1,2]", "a={b: 1}", "a=x: y: z"]
    assert [*map(value_of, words)] == [1, 0.001, 0.5, True, None, "x", "x, y", "[1, 2]", '{"b": 1}', "x: y: z"]
