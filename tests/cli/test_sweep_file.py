"""Sweeps that are files, on the command line, and `mmrnn sweep`."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from mmrnn.config.compose import PLUG_INS
from mmrnn.evaluation.reports.run_folder import FAILURE, RESULT
from mmrnn.io import jsonl

TINY = "model=visualrwkv6_tiny"


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
    assert runs.seeds() == [3, 3]
    cards(contrasts=[])
    code, _, err = cli(*command)
    assert code == 2
    assert "contrasts: they were written down before the first run" in err
    cards(vary={"connector": {"mlp": {"data.scenes": 14}}})
    assert "vary: connector=mlp" in cli(*command)[2]
    cards(grid={"conector": []})
    assert "sweep.contrasts.0: 'connector' is no key of the grid; did you mean 'conector'?" in cli(*command)[2]


def test_a_grid_that_the_command_line_narrows(cli, runs, cards):
    """`vary` keeps the overrides of all options of the card; those of an unknown option are refused."""
    narrowed = ("train", "-m", "-cd", cards(contrasts=[]), "sweep=mine", TINY, "data.scenes=12")
    assert cli(*narrowed, "sweep.grid.connector=[linear]")[0] == 0
    assert [cfg.data.scenes for cfg, _ in runs.calls] == [12, 12]
    runs.calls.clear()
    assert cli(*narrowed, "sweep.grid.connector=[mlp]", "out=other")[0] == 0
    assert [cfg.data.scenes for cfg, _ in runs.calls] == [13, 13]
    code, _, err = cli(*narrowed, "sweep.grid.connector=[mlp]", "+sweep.vary.connector.mpl={seed: 1}", "out=third")
    assert code == 2
    assert "sweep.vary.connector.mpl: no such option in the grid; did you mean 'mlp'?" in err


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


def test_status_and_rerun(cli, runs, cards):
    runs.faults = {2: ValueError("no\ndata")}
    cli("train", "-m", "-cd", cards(), "sweep=mine", TINY, "out=s")
    assert runs.seeds() == [1, 2, 1, 2]
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
        (["statis", "s"], "expected one of status, rerun, ask, store; got 'statis'; did you mean 'status'?"),
        (["status", "s", "seed=1"], "seed=1: one word too many"),
        (["status"], "missing DIR"),
    ):
        code, _, err = cli("sweep", *words)
        assert code == 2
        assert sentence in err
    (Path("s") / first / "job.json").write_text("{}")
    assert "job.json is damaged" in cli("sweep", "status", "s")[2]
