"""Sweeps on the command line: folders, failures, resuming, extension, refusals, `mmrnn sweep`."""

import json
from pathlib import Path

import pytest
import yaml

from mmrnn.cli.options import Interrupted
from mmrnn.evaluation.reports.comparison import find_runs
from mmrnn.evaluation.reports.run_folder import FAILURE, RESULT
from mmrnn.io import jsonl
from mmrnn.io.lock import FolderInUseError

TINY = "model=visualrwkv6_tiny"


def test_a_sweep(cli, runs):
    code, out, err = cli("train", "-m", TINY, "connector=linear,mlp", "seed=1,2")
    assert (code, err) == (0, "")
    assert [cfg.seed for cfg, _ in runs.calls] == [1, 2, 1, 2]
    folders = [out for _, out in runs.calls]
    assert len({*folders}) == 4
    assert all(cfg.out == str(out) and out.name.startswith("job_") for cfg, out in runs.calls)
    [root] = Path("multirun").glob("*")
    assert out.splitlines()[-1] == f"{root}: 4 finished; results: {root / 'results.jsonl'}"
    plan = yaml.safe_load((root / "sweep.yaml").read_text())
    assert [*plan["jobs"]] == [folder.name for folder in folders]
    assert json.loads((folders[0] / "job.json").read_text()) == {
        "overrides": [TINY, "connector=linear", "seed=1"],
        "run": ".",
    }


def test_results_are_flat_rows(cli, runs):
    pandas = pytest.importorskip("pandas")
    cli("train", "-m", TINY, "backbone.depth=4,5", "seed=1", "out=s")
    table = pandas.read_json("s/results.jsonl", lines=True)
    assert [*table["job"]] == [out.name for _, out in runs.calls]
    assert [*table["backbone.depth"]] == [4, 5]
    assert [*table["seed"]] == [1, 1]
    assert {*table["connector"]} == {"linear"}
    assert table["recipe"].isna().all()
    assert (table["accuracy"] == 0.75).all()
    assert (table["accuracy.scenes.count"] == 0.5).all()
    assert (table["questions.scenes.count"] == 2).all()
    assert {*table["packages.torch"].astype(str)} == {"2"}
    assert (table["objective_value"] == 0.25).all()
    assert {*table["objective"]} == {"lm"}
    assert not any(
        isinstance(value, dict | list) for row in jsonl.records(Path("s/results.jsonl")) for value in row.values()
    )


def test_a_sweep_with_a_job_that_does_not_fit_does_not_start(cli, runs):
    code, _, err = cli("train", "-m", "model=llava15_tiny", "scan=forward,snake", "seed=1,2")
    assert code == 2
    assert "scan: snake reorders patches for recurrent backbones" in err
    assert "(in the job model=llava15_tiny scan=snake seed=1)" in err
    assert runs.calls == []
    assert not Path("multirun").exists()


def test_a_failure_is_named_and_the_other_jobs_run(cli, runs):
    """Once while it happens, once at the end, in the folder of the job, and in the report."""
    runs.faults = {13: RuntimeError("the disk is full"), 14: ValueError("no data")}
    code, out, err = cli("train", "-m", TINY, "seed=1,13,14,2", "out=s")
    assert code == 1
    assert [cfg.seed for cfg, _ in runs.calls] == [1, 13, 14, 2]
    names = [out.name for _, out in runs.calls]
    assert out.count("the disk is full") == 1
    assert f"{names[1]} (seed=13) failed: RuntimeError: the disk is full" in out
    assert "s: 2 finished, 2 failed; results:" in out
    assert err == (
        f"mmrnn: 2 of 4 jobs are not finished: {names[1]} (seed=13) failed: RuntimeError: the disk is full; "
        f"{names[2]} (seed=14) failed: ValueError: no data\n"
    )
    failure = json.loads((Path("s") / names[1] / FAILURE).read_text())
    assert failure["overrides"] == [TINY, "seed=13"]
    assert (failure["error"], failure["message"]) == ("RuntimeError", "the disk is full")
    assert "in train\n    raise fault" in failure["traceback"]
    code, out, _ = cli("report", "s")
    assert code == 0
    assert out.count("RuntimeError: the disk is full") == 1
    assert f"not finished: s/{names[2]}: ended before its first record: ValueError: no data (seed=14)" in out

    runs.calls.clear()
    del runs.faults[13]
    code, out, err = cli("train", "-m", TINY, "seed=1,13,14,2", "out=s")
    assert runs.seeds() == [13, 14]
    assert [line.split(" ", 2)[2] for line in out.splitlines() if line.startswith("finished before: ")] == [
        f"{names[0]} (seed=1)",
        f"{names[3]} (seed=2)",
    ]
    assert err.startswith("mmrnn: 1 of 4 jobs are not finished: ")
    assert not (Path("s") / names[1] / FAILURE).exists()


def test_the_same_command_does_what_is_left(cli, runs):
    words = ("train", "-m", TINY, "connector=linear,mlp", "out=s")
    cli(*words, "seed=1,2")
    assert runs.seeds() == [1, 2, 1, 2]
    code, out, _ = cli(*words, "seed=1,2")
    assert (code, runs.seeds()) == (0, [])
    assert out.count("finished before: ") == 4
    assert cli(*words, "seed=3,2,1", "workers=0")[0] == 0, "another order, and a setting that changes nothing"
    assert runs.seeds() == [3, 3]
    assert cli(*words, "seed=1")[0] == 2
    plan = yaml.safe_load(Path("s/sweep.yaml").read_text())
    assert len(plan["jobs"]) == len(jsonl.records(Path("s/results.jsonl"))) == 6
    assert [job[-1] for job in plan["jobs"].values()] == ["seed=3", "seed=2", "seed=1"] * 2


def test_another_sweep_is_refused(cli, runs):
    cli("train", "-m", TINY, "seed=1,2", "out=s")
    before = Path("s/sweep.yaml").read_text()
    for words, sentence in (
        (["model=llava15_tiny", "seed=1,2"], f"overrides: model=llava15_tiny {TINY}"),
        ([TINY, "seed=1,2", "data.scenes=12"], "overrides: data.scenes=12"),
        ([TINY, "seed=1,2", "connector=linear,mlp"], "grid: connector"),
        (["sweep=scan", "sweep.seeds=[0]"], "sweep: None -> scan"),
    ):
        code, _, err = cli("train", "-m", *words, "out=s")
        assert code == 2
        assert "mmrnn: s belongs to another sweep (it differs in " in err
        assert sentence in err
    assert Path("s/sweep.yaml").read_text() == before
    Path("s/sweep.yaml").write_text("jobs: 3")
    code, _, err = cli("train", "-m", TINY, "seed=1,2", "out=s")
    assert code == 2
    assert "s/sweep.yaml is damaged: expected Mapping" in err


def test_a_job_of_another_process_is_left_alone(cli, runs):
    runs.faults = {2: FolderInUseError("s/job is in use by process 7; wait for it")}
    code, out, err = cli("train", "-m", TINY, "seed=1,2,3", "out=s")
    assert [cfg.seed for cfg, _ in runs.calls] == [1, 2, 3]
    name = runs.calls[1][1].name
    assert f"left alone: {name} (seed=2): s/job is in use by process 7" in out
    assert not (Path("s") / name / FAILURE).exists()
    assert code == 1
    assert f"1 of 3 jobs are not finished: {name} (seed=2) stopped" in err


def test_a_job_that_another_process_finishes_meanwhile_is_not_run_again(cli, runs):
    train = runs.train

    def first(cfg, out, choices, world):
        """The first job takes so long that another process has finished the last one when it ends."""
        objective = train(cfg, out, choices, world)
        last = [*yaml.safe_load(Path("s/sweep.yaml").read_text())["jobs"]][-1]
        (Path("s") / last).mkdir(exist_ok=True)
        for name in ("job.json", RESULT):
            (Path("s") / last / name).write_bytes((out / name).read_bytes())
        return objective

    runs.train = first
    code, out, _ = cli("train", "-m", TINY, "seed=1,2,3", "out=s")
    assert code == 0
    assert runs.seeds() == [1, 2]
    assert out.count("finished before: ") == 1
    assert len(jsonl.records(Path("s/results.jsonl"))) == 3


def test_an_interrupted_sweep_says_how_to_resume(cli, runs, tmp_path):
    runs.faults = {2: KeyboardInterrupt()}
    code, _, err = cli("train", "-m", TINY, "seed=1,2,3", "out=s")
    assert code == 130
    assert err == f"mmrnn: stopped; resume with: mmrnn sweep rerun {tmp_path / 's'}\n"
    assert runs.seeds() == [1, 2]
    runs.faults = {}
    assert cli("sweep", "rerun", "s")[0] == 0
    assert runs.seeds() == [2, 3]


def test_a_report_keeps_the_order_of_the_jobs(cli, runs):
    cli("train", "-m", TINY, "seed=3,1,2", "out=s")
    finished, _ = find_runs("s")
    assert [run.result["seed"] for run in finished] == [3, 1, 2]


@pytest.mark.slow
def test_a_recipe_of_several_stages(cli, runs):
    """A job is finished with its last stage, and its folder is locked while a stage is prepared."""
    runs.faults = {2: ValueError("no data")}
    words = ("train", "-m", TINY, "recipe=visualrwkv6", "encoder=clip_tiny_v6", "data=demo", "seed=1,2", "out=s")
    code, _, err = cli(*words)
    assert code == 1, err
    assert [out.name for _, out in runs.calls] == ["align", "instruct", "align"]
    assert {len(out.relative_to(Path("s").absolute()).parts) for _, out in runs.calls} == {2}
    failed = runs.calls[-1][1]
    assert json.loads((failed / FAILURE).read_text())["overrides"][-1] == "seed=2"
    assert "1 of 2 jobs are not finished" in err
    _, report, _ = cli("report", "s")
    assert report.count("no data") == 1
    runs.calls.clear()
    runs.faults = {}
    assert cli(*words)[0] == 0
    assert [out.name for _, out in runs.calls] == ["align", "instruct"]


def test_an_interrupt_passes_between_processes():
    import pickle

    stop = pickle.loads(pickle.dumps(Interrupted("stopped", 143)))
    assert (str(stop), stop.code) == ("stopped", 143)


def test_a_launcher_that_fails_does_not_hide_the_jobs(cli, runs, monkeypatch):
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    def launch(*_, **__):
        raise OSError("no queue")

    monkeypatch.setattr(BasicLauncher, "launch", launch)
    code, out, err = cli("train", "-m", TINY, "seed=1,2", "out=s")
    assert code == 1
    assert "s: 2 not begun" in out
    assert err.splitlines()[0] == "OSError: no queue"
    assert "2 of 2 jobs are not finished" in err.splitlines()[-1]
