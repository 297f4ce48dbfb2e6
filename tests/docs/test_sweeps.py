"""docs/sweeps.md: its commands run, for two steps of a tiny model; its file is a sweep; its tables name what exists."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from mmrnn.cli.main import main
from mmrnn.config.sweep import read_sweep
from mmrnn.config.sweep_plan import plan_sweep

PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
SMALL = (
    *(
        "stage.instruct.steps=2",
        "stage.instruct.batch_size=2",
        "max_length=200",
        "precision=fp32",
        "encoder=patch_tiny",
    ),
    *("data.scenes=4", "data.rounds=1", "data.kinds=[count,digit]", "evaluate.samples=4", "evaluate.every=0"),
    *("tracker=none", "workers=0", "device=cpu", "connector=linear"),
)
FILE = ("sweep.grid.model=[visualrwkv6_tiny,visualrwkv7_tiny]", "sweep.seeds=[0]", "sweep.grid.prompt=[first,sandwich]")
"""What makes the sweep of the page small."""


def block(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


@pytest.mark.slow
def test_every_command_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    for line in block("bash")[0].splitlines():
        words = shlex.split(line)[1:]
        small = [word for word in SMALL if not word.startswith("connector") or "sweep=prompt" in words]
        more = (*FILE, "sweep.contrasts=[]") if "sweep=prompt" in words else ()
        assert main([*words, *(small if words[0] == "train" else ()), *more]) == 0, line
    assert "4 finished" in capsys.readouterr().out
    exec(block("python")[0], {})
    shown = capsys.readouterr().out
    assert re.search(r"visualrwkv7_tiny first .* 1\n +sandwich .* 1\n", shown)


def test_the_file_of_the_page_is_a_sweep():
    [text] = block("yaml")
    plan = plan_sweep([], read_sweep(yaml.safe_load(text)))
    assert len(plan.jobs) == 18
    assert sum("stage.instruct.lr=0.003" in job for job in plan.jobs.values()) == 9
