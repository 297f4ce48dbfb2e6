"""`mmrnn sweep ask`: finished runs are asked again without training, and their answers are those of a sweep."""

import json
from pathlib import Path

import yaml

from mmrnn.cli.main import main
from mmrnn.evaluation.reports.answer_file import read_answers

SMALL = (
    *("model=visualrwkv6_tiny", "encoder=patch_tiny", "stage.instruct.steps=2", "stage.instruct.batch_size=2"),
    *("data.scenes=4", "data.rounds=1", "data.kinds=[count,colour]", "evaluate.samples=6", "evaluate.every=0"),
    *("evaluate.max_new_tokens=3", "tracker=none", "workers=0", "device=cpu", "max_length=200"),
)


def test_finished_runs_are_asked_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *SMALL, "prompt=first,sandwich", "seed=1", "out=s"]) == 0
    ask = ["sweep", "ask", "s", "t", "evaluate.distance=[5]"]
    capsys.readouterr()
    assert main([*ask, "prompt=sandwich"]) == 0
    [first] = Path("t").glob("job_*")
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{first.name} (prompt=sandwich): ")
    assert main(ask) == 0
    assert f"asked before: {first.name}" in capsys.readouterr().out
    plans = [yaml.safe_load(Path(folder, "sweep.yaml").read_text()) for folder in "st"]
    assert {**plans[1], "asked": []} == plans[0]
    assert plans[1]["asked"] == ["evaluate.distance=[5]"]
    for name in plans[0]["jobs"]:
        found, before = read_answers(Path("t", name)), read_answers(Path("s", name))
        assert {split: found[split] for split in before} == before
        assert [*found] == [*before, *(f"{split}_after_5" for split in before)]
        results = [json.loads(Path(folder, name, "result.json").read_text()) for folder in "st"]
        assert results[1]["objective"] == results[0]["objective"]
        assert results[1]["accuracy"].keys() == found.keys()
        assert {split: results[1]["accuracy"][split] for split in before} == results[0]["accuracy"]
    assert len(Path("t/results.jsonl").read_text().splitlines()) == 2
    assert main(["sweep", "status", "t"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 finished; results: t/results.jsonl"
    assert main(["sweep", "ask", "s", "t", "evaluate.distance=[6]"]) == 2
    assert "asked: evaluate.distance=[5] -> evaluate.distance=[6]" in capsys.readouterr().err


def test_mistakes_are_named(cli, runs):
    cli("train", "-m", "model=visualrwkv6_tiny", "prompt=first,sandwich", "out=s")
    for words, sentence in (
        ([], "name a folder, then settings"),
        (["t", "evaluate.distanc=[5]"], "did you mean 'distance'?"),
        (["t", "evaluate.distance=[0]"], "evaluate.distance=[0]: "),
        (["t", "promt=first"], "did you mean 'prompt'?"),
        (["t", "prompt=last"], "no run is finished"),
    ):
        code, _, err = cli("sweep", "ask", "s", *words)
        assert code == 2
        assert sentence in err
    assert not Path("t").exists()
