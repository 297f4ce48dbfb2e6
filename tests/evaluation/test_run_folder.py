"""`mmrnn report` shows every run of a folder: finished, failed, running, and those whose files are damaged."""

import json
import re

import pytest

from mmrnn.cli import report
from mmrnn.config.error import ConfigError
from mmrnn.evaluation.reports import run_folder
from mmrnn.evaluation.reports.comparison import find_runs
from mmrnn.evaluation.reports.run_folder import FAILURE, LOG, RESULT, read_log, read_result, write_failure
from mmrnn.io.lock import LOCK

DROPPED = {"total": 0, "reasons": {}}
RECORD = {"step": 10, "stage": "instruct", "loss": 1.5, "lr": 1e-3, "skipped_steps": 0, "dropped": DROPPED}


def result(seed):
    return {
        "config": {"seed": seed},
        "choices": {"connector": "linear"},
        "parameters": 1000,
        "seconds": 3.0,
        "loss": 1.5,
        "accuracy": {"records": {"reply": {"accuracy": 0.5}}},
        "objective": 0.5,
    }


@pytest.fixture
def sweep(tmp_path):
    """Two finished jobs, and `job(name, log=..., result=...)` to add others."""

    def job(name, log=(RECORD,), content=None):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / LOCK).touch()  # what a killed process leaves
        if log:
            (tmp_path / name / LOG).write_text("".join(json.dumps(record) + "\n" for record in log))
        if content is not None:
            (tmp_path / name / RESULT).write_bytes(content)
        return tmp_path / name

    for seed in (0, 1):
        job(str(seed), content=json.dumps(result(seed)).encode())
    job.root = tmp_path
    return job


def reasons(folder):
    finished, unfinished = find_runs(folder)
    assert [run.folder.name for run in finished] == ["0", "1"]
    return {run.folder.name: run.reason for run in unfinished}


def test_jobs_that_died_early_are_shown_with_the_reason(sweep, capsys):
    write_failure(sweep("2", log=()), ValueError("the data is\nnot there"))
    write_failure(sweep("3"), KeyboardInterrupt())
    sweep("4", log=())
    sweep("5")
    (sweep("6") / FAILURE).write_text("{")
    found = reasons(sweep.root)
    assert found["2"] == "ended before its first record: ValueError: the data is\nnot there"
    assert found["3"] == "ended after step 10: stopped"
    assert found["4"] == "ended before its first record without a word (killed, or the machine went down)"
    assert found["5"].startswith("ended after step 10 without a word")
    assert found["6"] == f"ended after step 10, and {sweep.root / '6' / FAILURE} is damaged"
    report.main([str(sweep.root)])
    out = capsys.readouterr().out
    for text in (out, *((sweep.root / f"comparison.{end}").read_text() for end in ("md", "html"))):
        assert all(str(sweep.root / name) in text for name in found)
        assert "without a word" in text
    assert "| 0 | 1,000 |" in (sweep.root / "comparison.md").read_text()


def test_a_run_that_goes_on_is_no_failure(sweep, monkeypatch):
    write_failure(sweep("2"), ValueError("of the attempt before"))
    monkeypatch.setattr(run_folder, "lock_holder", lambda folder: "process 7")
    assert reasons(sweep.root) == {"2": "running, after step 10: process 7"}


DAMAGED = {
    b"": "it is empty",
    b'{"config": {': "is no result of a run: Expecting",
    b"\xff\xfe\x00": "is no result of a run: 'utf-8' codec",
    b"[]": "it is no JSON object",
    b"{}": "it lacks 'config'",
    b"[" * 100_000: "is no result of a run",
    json.dumps(result(0) | {"loss": None}).encode(): "it has loss=None, which should be of type float",
    json.dumps(result(0) | {"loss": float("nan")}).encode(): "it has loss=nan, which is no finite number",
    json.dumps(result(0) | {"seconds": 10**400}).encode(): "which is no finite number",
    json.dumps(
        result(0) | {"choices": {"connector": ["a"]}}
    ).encode(): "it has connector=['a'], which should be of type",
    json.dumps(result(0) | {"accuracy": {"a": 1}}).encode(): "holds an accuracy of 'a' that is no JSON object",
    json.dumps(result(0) | {"accuracy": {"a": {"b": {}}}}).encode(): "holds an accuracy of 'a' that lacks 'accuracy'",
}


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: content[:12].decode("latin1"))
def test_a_result_that_is_none_is_named(sweep, content):
    folder = sweep("2", content=content)
    with pytest.raises(ValueError, match=re.escape(DAMAGED[content])) as raised:
        read_result(folder)
    assert str(folder / RESULT) in str(raised.value)
    assert "; delete it and train again" in str(raised.value)
    assert reasons(sweep.root) == {"2": str(raised.value)}


def test_a_damaged_log_is_noted(sweep, capsys):
    for name in "0":
        with (sweep.root / name / LOG).open("a") as file:
            file.write("{]\n")
    (sweep("2") / LOG).write_text('{"step": "ten"}\n')
    found = reasons(sweep.root)
    assert "after an unknown step" in found["2"]
    assert f"{sweep.root / '2' / LOG} is damaged: record 1 has step='ten'" in found["2"]
    report.main([str(sweep.root)])
    assert f"note: {sweep.root / '0' / LOG} is damaged: line 2 is not JSON" in capsys.readouterr().out
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_log(sweep.root / "0")


def test_nothing_finished(tmp_path, capsys):
    write_failure(tmp_path, RuntimeError("no"))
    with pytest.raises(ConfigError, match="none of these runs is finished"):
        report.main([str(tmp_path)])
    assert f"not finished: {tmp_path}: ended before its first record: RuntimeError: no" in capsys.readouterr().out
