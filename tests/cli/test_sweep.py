"""Sweeps on the command line: folders, failures, resuming, extension, refusals, `mmrnn sweep`."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from mmrnn.cli.main import main
from mmrnn.cli.options import Interrupted
from mmrnn.config.compose import PLUG_INS
from mmrnn.evaluation.reports.comparison import find_runs
from mmrnn.evaluation.reports.run_folder import FAILURE, RESULT, write_failure
from mmrnn.io import jsonl
from mmrnn.io.lock import FolderInUseError

TINY = "model=visualrwkv6_tiny"

PLAIN = {"config": {}, "parameters": 1, "seconds": 1.0, "loss": 1.0, "objective": 0.25}
ACCURACY = {"scenes": {"count": {"accuracy": 0.5, "total": 2}, "name": {"accuracy": 1.0, "total": 1}}}


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """A training that notes its calls and writes a result; `runs.faults` are raised in the runs of these seeds."""
    noted = ModuleType("mmrnn.training.run")
    noted.calls, noted.faults = [], {}

    def train(cfg, out: Path, choices, world):
        noted.calls.append((cfg, out))
        if cfg.seed in noted.faults:
            fault = noted.faults[cfg.seed]
            if not isinstance(fault, FolderInUseError):
                write_failure(out, fault)
            raise fault
        result = {**PLAIN, "seed": cfg.seed, "choices": choices, "accuracy": ACCURACY, "packages": {"torch": "2"}}
        (out / RESULT).write_text(json.dumps(result))
        return 0.25

    noted.train = train
    monkeypatch.setitem(sys.modules, "mmrnn.training.run", noted)
    monkeypatch.chdir(tmp_path)
    return noted


@pytest.fixture
def cli(capsys):
    def cli(*words):
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return cli


def seeds(runs):
    """Seeds of the runs since the last call."""
    found = [cfg.seed for cfg, _ in runs.calls]
    runs.calls.clear()
    return found


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
    assert seeds(runs) == [13, 14]
    assert [line.split(" ", 2)[2] for line in out.splitlines() if line.startswith("finished before: ")] == [
        f"{names[0]} (seed=1)",
        f"{names[3]} (seed=2)",
    ]
    assert err.startswith("mmrnn: 1 of 4 jobs are not finished: ")
    assert not (Path("s") / names[1] / FAILURE).exists()


def test_the_same_command_does_what_is_left(cli, runs):
    words = ("train", "-m", TINY, "connector=linear,mlp", "out=s")
    cli(*words, "seed=1,2")
    assert seeds(runs) == [1, 2, 1, 2]
    code, out, _ = cli(*words, "seed=1,2")
    assert (code, seeds(runs)) == (0, [])
    assert out.count("finished before: ") == 4
    assert cli(*words, "seed=3,2,1", "workers=0")[0] == 0, "another order, and a setting that changes nothing"
    assert seeds(runs) == [3, 3]
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
        (["sweep=scan", "sweep.seeds=[0]", "sweep.grid.scan=[bidirectional,forward]"], "sweep: None -> scan"),
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


@pytest.fixture
def cards(tmp_path):
    """Folder of cards with `sweep=mine`."""
    folder = tmp_path / "cards"
    (folder / "sweep").mkdir(parents=True)
    content = {
        "grid": {"connector": ["linear", "mlp"]},
        "seeds": [1, 2],
        "vary": {"connector": {"mlp": {"data.scenes": 13}}},
        "contrasts": [{"group": "connector", "option": "mlp", "against": "linear"}],
    }

    def write(**changes):
        (folder / "sweep" / "mine.yaml").write_text(yaml.safe_dump(content | changes))
        return str(folder)

    write()
    return write


def test_a_sweep_of_a_file(cli, runs, cards):
    """Its folder has its name, so that the same command resumes."""
    command = ("train", "-m", "-cd", cards(), "sweep=mine", TINY, "data.scenes=12")
    assert cli(*command)[0] == 0
    assert [(cfg.data.scenes, cfg.seed) for cfg, _ in runs.calls] == [(12, 1), (12, 2), (13, 1), (13, 2)]
    assert {out.parent for _, out in runs.calls} == {Path("multirun/mine").absolute()}
    assert all("sweep" not in cfg for cfg, _ in runs.calls)
    assert "sweep" not in jsonl.records(Path("multirun/mine/results.jsonl"))[0]
    runs.calls.clear()
    assert cli(*command, "sweep.seeds=[2,3]")[0] == 0
    assert seeds(runs) == [3, 3]
    cards(contrasts=[])
    code, _, err = cli(*command)
    assert code == 2
    assert "contrasts: they were written down before the first run" in err
    cards(vary={"connector": {"mlp": {"data.scenes": 14}}})
    assert "vary: connector=mlp" in cli(*command)[2]
    cards(grid={"conector": []})
    assert "sweep.contrasts.0: 'connector' is no key of the grid; did you mean 'conector'?" in cli(*command)[2]


def test_mistakes_of_the_command_line(cli, runs, cards):
    folder = cards()
    for words, sentence in (
        (["sweep=promt"], "did you mean 'prompt'?"),
        (["-m", "sweep=prompt,scan"], "name one sweep"),
        (["-m", "sweep.seeds=[1]"], "name one sweep"),
        (["sweep=prompt"], "sweep: it makes several jobs; write `mmrnn train -m`"),
        (["-m", TINY, "seed=1,2", "hydra.sweep.subdir=a"], "named by a hash of its overrides; remove it"),
        (["-m", "-cd", folder, "sweep=mine", "seed=4"], "seed=4: the sweep crosses seed; set sweep.seeds=[...]"),
    ):
        code, _, err = cli("train", *words)
        assert code == 2, words
        assert sentence in err
    for name, package in PLUG_INS.items():
        kind, plug_in = name.split("/")
        place = f"hydra_plugins.hydra_{plug_in.partition('_')[0]}_{kind}"
        if find_spec("hydra_plugins") is None or find_spec(place) is None:
            code, _, err = cli("train", "-m", TINY, "seed=1,2", f"hydra/{name.replace('/', '=')}", "out=s")
            assert code == 2
            assert err.endswith(f"Could not find 'hydra/{name}': pip install {package}\n")
    assert not runs.calls
    assert not Path("s").exists()


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
    assert seeds(runs) == [1, 2]
    assert out.count("finished before: ") == 1
    assert len(jsonl.records(Path("s/results.jsonl"))) == 3


def test_an_interrupted_sweep_says_how_to_resume(cli, runs, tmp_path):
    runs.faults = {2: KeyboardInterrupt()}
    code, _, err = cli("train", "-m", TINY, "seed=1,2,3", "out=s")
    assert code == 130
    assert err == f"mmrnn: stopped; resume with: mmrnn sweep rerun {tmp_path / 's'}\n"
    assert seeds(runs) == [1, 2]
    runs.faults = {}
    assert cli("sweep", "rerun", "s")[0] == 0
    assert seeds(runs) == [2, 3]


def test_status_and_rerun(cli, runs, cards):
    runs.faults = {2: ValueError("no\ndata")}
    cli("train", "-m", "-cd", cards(), "sweep=mine", TINY, "out=s")
    assert seeds(runs) == [1, 2, 1, 2]
    [first, *_, last] = yaml.safe_load(Path("s/sweep.yaml").read_text())["jobs"]
    (Path("s") / last / FAILURE).unlink()
    (Path("s") / first / RESULT).unlink()
    Path("s/results.jsonl").unlink()
    code, out, _ = cli("sweep", "status", "s")
    assert code == 0
    rows = [line.split("  ") for line in out.splitlines()]
    assert [row[0].strip() for row in rows[:-1]] == ["stopped", "failed", "finished", "stopped"]
    assert "connector=linear seed=2" in out
    assert "ValueError: no data" in out
    assert rows[-1] == ["1 finished, 2 stopped, 1 failed; results: s/results.jsonl"]
    assert len(jsonl.records(Path("s/results.jsonl"))) == 1
    runs.faults = {}
    assert cli("sweep", "rerun", "s", "workers=0")[0] == 0
    assert [(cfg.seed, cfg.workers) for cfg, _ in runs.calls] == [(1, 0), (2, 0), (2, 0)]
    assert cli("sweep", "status", "s")[1].splitlines()[-1] == "4 finished; results: s/results.jsonl"
    for words, sentence in (
        (["status", "cards"], "cards: it holds no sweep.yaml"),
        (["statis", "s"], "expected one of status, rerun; got 'statis'; did you mean 'status'?"),
        (["status", "s", "seed=1"], "seed=1: one word too many"),
        (["status"], "missing DIR"),
    ):
        code, _, err = cli("sweep", *words)
        assert code == 2
        assert sentence in err
    (Path("s") / first / "job.json").write_text("{}")
    assert "job.json is damaged" in cli("sweep", "status", "s")[2]


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
