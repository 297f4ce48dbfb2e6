"""docs/evaluation.md, "Comparing runs": its commands run, for two steps, and print what the page explains."""

import re
import shlex
from itertools import product
from pathlib import Path

import pytest

from mmrnn.cli.main import main
from mmrnn.evaluation.reports.certainty import SPREAD_COLUMNS
from mmrnn.evaluation.reports.disagreements import MAX_DISAGREEMENTS
from mmrnn.evaluation.reports.pairing import COLUMNS, INSIGNIFICANT
from mmrnn.evaluation.reports.statistics import RESAMPLES
from mmrnn.evaluation.reports.sweep_file import read_plan

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Comparing runs\n")[2].partition("\n## ")[0]
SMALL = (
    *("stage.instruct.steps=2", "stage.instruct.batch_size=2", "schedule.warmup=1", "max_length=200", "precision=fp32"),
    *("data.scenes=4", "data.rounds=1", "data.kinds=[count,digit]", "evaluate.samples=4", "evaluate.every=0"),
    *("tracker=none", "workers=0"),
)
RUNS = [f"connector={connector} seed={seed}" for connector, seed in product(("linear", "mlp"), (1, 2, 3))]
INTERVAL = r"{0}\d+\.\d% \[{0}\d+\.\d%, {0}\d+\.\d%\]"


def commands():
    return [shlex.split(line) for line in re.findall(r"^mmrnn (.*)$", SECTION, re.M)]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command of the page; the date in it is that of the sweep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")

    def run(words):
        [sweep] = [*Path("multirun").glob("*")] or [""]
        words = [word.replace("multirun/2026-01-31_12-00-00", str(sweep)) for word in words]
        jobs = [*read_plan(sweep).jobs] if sweep else []
        words = [re.sub(r"job_\w{12}", jobs[3], word) if jobs else word for word in words]
        assert main([*words, *(SMALL if words[0] == "train" else ())]) == 0
        return capsys.readouterr().out

    return run


def rows(title):
    """Cells of a table in `comparison.md`, its head first."""
    [page] = Path("multirun").glob("*/comparison.md")
    text = page.read_text().partition(f"## {title}")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.slow
def test_a_sweep_is_compared(run):
    train, newest, baseline = commands()
    run(train)
    shown = run(newest)
    head, _, *found = rows(f"Differences from {RUNS[0]}")
    assert head == COLUMNS
    assert [row[:3] for row in found] == [
        [split, name, "4"] for split in ("scenes", "drawings", "writing") for name in RUNS
    ]
    for number, row in enumerate(found):
        assert re.fullmatch(INTERVAL.format(""), row[4])
        assert row[4] in shown
        if number % 6:
            assert re.fullmatch(INTERVAL.format("[+-]"), row[5])
            assert row[5] in shown
            assert row[8] == INSIGNIFICANT
    assert shown.count(INSIGNIFICANT) == 15
    head, _, *found = rows("Spread over seeds")
    assert head == SPREAD_COLUMNS
    assert [row[:3] for row in found] == [
        [f"connector={name}", split, "3"] for name in ("linear", "mlp") for split in ("scenes", "drawings", "writing")
    ]
    assert "Spread over seeds" in shown
    run(baseline)
    assert [row[8] for row in rows(f"Differences from {RUNS[3]}")[2:8]].index("baseline") == 3


def test_the_page_explains_every_column_and_says_the_numbers_of_the_code():
    explained = ", ".join(re.findall(r"^\| ([^|]+) \|", SECTION.partition("\n**Paired")[0], re.M))
    assert explained == ", ".join(["column", *(column for column in COLUMNS if column != "run")])
    assert f"{RESAMPLES} times" in SECTION
    assert MAX_DISAGREEMENTS == 8
    assert "up to eight questions" in SECTION
    assert f"`{INSIGNIFICANT}`" in SECTION
