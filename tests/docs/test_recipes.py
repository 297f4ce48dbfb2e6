"""docs/recipes.md: its table matches the recipes; its commands compose."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.recipe_stages import route_overrides, stage_runs
from mmrnn.config.validate import check

FILE = Path(__file__).parents[2] / "docs" / "recipes.md"
PAGE = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""


def table() -> str:
    """Every recipe: what it is, what it reads and trains, and how fast."""
    rows = ["| recipe | what | data | trains | rate | samples a step | steps |", "|---|---|---|---|---|---|---|"]
    for path in sorted((conf_dir() / "recipe").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        if "stages" in content:
            continue
        chosen = {key.removeprefix("override /"): name for entry in content["defaults"] for key, name in entry.items()}
        [stage] = content["stage"].values()
        trains = ", ".join(f"`{pattern}`" for pattern in stage["train"])
        trains += "".join(f", not `{pattern}`" for pattern in stage["freeze"])
        final = content["schedule"]["min_lr"]
        rate = f"{stage['lr']:g}" + (f" to {final:g}" if final != stage["lr"] else "")
        about = text.splitlines()[1].removeprefix("# ")
        cells = (f"`{path.stem}`", about, f"`{chosen['data']}`", trains, rate, stage["batch_size"], stage["steps"])
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def designs() -> str:
    """Every recipe of several stages, and the recipes of its stages."""
    rows = ["| recipe | what | stages |", "|---|---|---|"]
    for path in sorted((conf_dir() / "recipe").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        stages = yaml.safe_load(text).get("stages", {})
        cells = ", ".join(f"`{name}`: `{stage['recipe']}`" for name, stage in stages.items())
        if stages:
            rows.append(f"| `{path.stem}` | {text.splitlines()[1].removeprefix('# ')} | {cells} |")
    return "\n".join(rows)


def commands() -> list[list[str]]:
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    return [shlex.split(line.partition("  #")[0])[2:] for line in lines if line.startswith("mmrnn train")]


def test_the_table_is_that_of_the_recipes():
    assert f"<!-- recipes -->\n{table()}\n<!-- /recipes -->" in PAGE, f"the table should read\n{table()}"


def test_the_table_of_designs_is_that_of_the_recipes():
    assert f"<!-- designs -->\n{designs()}\n<!-- /designs -->" in PAGE, f"the table should read\n{designs()}"


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_commands_fit(command):
    routed = route_overrides(command)
    cfg = compose(*routed)
    runs = list(stage_runs(cfg.stages, routed, FILE)) if cfg.stages else []
    for one in [run.overrides for run in runs] or [routed]:
        check(compose(*(word for word in one if not word.startswith(f"weights.model={FILE}"))))


def test_there_are_commands():
    assert len(commands()) >= 4
