"""docs/recipes.md: its commands compose."""

import re
import shlex
from pathlib import Path

import pytest

from mmrnn.config.compose import compose
from mmrnn.config.recipe_stages import route_overrides, stage_runs
from mmrnn.config.validate import check

FILE = Path(__file__).parents[2] / "docs" / "recipes.md"
PAGE = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""


def commands() -> list[list[str]]:
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    return [shlex.split(line.partition("  #")[0])[2:] for line in lines if line.startswith("mmrnn train")]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_commands_fit(command):
    routed = route_overrides(command)
    cfg = compose(*routed)
    runs = list(stage_runs(cfg.stages, routed, FILE)) if cfg.stages else []
    for one in [run.overrides for run in runs] or [routed]:
        check(compose(*(word for word in one if not word.startswith(f"weights.model={FILE}"))))


def test_there_are_commands():
    assert len(commands()) >= 4
