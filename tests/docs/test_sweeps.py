"""docs/sweeps.md: its commands run, for two steps of a tiny model; its file is a sweep; its tables name what exists."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from mmrnn.cli.main import main
from mmrnn.config.sweep import read_sweep
from mmrnn.config.sweep_plan import plan_sweep
from mmrnn.evaluation.reports.resampling import RESAMPLES
from mmrnn.evaluation.sweeps.contrasts import NO_DIFFERENCE, NO_INTERVAL, ONLY_INTERVAL, TOO_FEW
from mmrnn.evaluation.sweeps.report import FILES

PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
SMALL = (
    *(
        "stage.instruct.steps=2",
        "stage.instruct.batch_size=2",
        "max_length=200",
        "precision=fp32",
        "encoder=patch_tiny",
    ),
    *(
        "data=demo",
        "data.scenes=4",
        "data.rounds=1",
        "data.kinds=[count,digit]",
        "evaluate.samples=4",
        "evaluate.every=0",
    ),
    *("tracker=none", "workers=0", "device=cpu", "connector=linear"),
)
FILE = (
    "sweep.grid.model=[visualrwkv6_tiny,visualrwkv7_tiny]",
    "sweep.seeds=[0,1]",
    "sweep.grid.prompt=[first,sandwich]",
)
"""Overrides that make the sweep of the page small."""

CONTRAST = "{group:prompt,option:sandwich,against:first,by:model}"


def block(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


@pytest.mark.slow
def test_every_command_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    for line in block("bash")[0].splitlines():
        words = shlex.split(line)[1:]
        small = [word for word in SMALL if not word.startswith("connector") or "sweep=prompt" in words]
        more = (*FILE, f"sweep.contrasts=[{CONTRAST}]") if "sweep=prompt" in words else ()
        assert main([*words, *(small if words[0] == "train" else ()), *more]) == 0, line
    assert "8 finished" in capsys.readouterr().out
    for line, runs in zip(block("bash")[1].splitlines(), (False, True), strict=True):
        assert main(shlex.split(line)[1:]) == 0
        assert ("Differences from" in capsys.readouterr().out) == runs
    for name in FILES:
        assert len((Path("multirun/prompt") / name).read_text().splitlines()) > 4
    for folder in ("evidence", "docs"):
        Path(folder).mkdir()
    Path("evidence/questions.yaml").write_text(block("yaml")[1])
    for line in block("bash")[2].splitlines():
        assert main(shlex.split(line)[1:]) == 0
    assert "- `prompt: sandwich - first` on `scenes`: " in Path("docs/evidence.md").read_text()
    capsys.readouterr()
    exec(block("python")[0], {})
    shown = capsys.readouterr().out
    assert re.search(r"visualrwkv7_tiny first .* 2\n +sandwich .* 2\n", shown)


def test_the_file_of_the_page_is_a_sweep():
    text, _ = block("yaml")
    plan = plan_sweep([], read_sweep(yaml.safe_load(text)))
    assert len(plan.jobs) == 18
    assert sum("stage.instruct.lr=0.003" in job for job in plan.jobs.values()) == 9


def test_the_page_says_what_the_report_says():
    for verdict in ("better", "worse", TOO_FEW, ONLY_INTERVAL, NO_DIFFERENCE, NO_INTERVAL):
        assert f"`{verdict}`" in PAGE
    assert f"{RESAMPLES} times" in PAGE
    for name in FILES:
        assert f"`{name}`" in PAGE
