"""docs/recipes.md: its table matches the recipes; its commands compose."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.validate import check

FILE = Path(__file__).parents[2] / "docs" / "recipes.md"
PAGE = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""


def table() -> str:
    """Every recipe: what it is, what it reads and trains, and how fast."""
    rows = ["| recipe | what | data | trains | rate | samples a step | steps |", "|---|---|---|---|---|---|---|"]
    for path in sorted((conf_dir() / "recipe").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
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


def commands() -> list[list[str]]:
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    return [shlex.split(line.partition("  #")[0])[2:] for line in lines if line.startswith("mmrnn train")]


def test_the_table_is_that_of_the_recipes():
    assert f"<!-- recipes -->\n{table()}\n<!-- /recipes -->" in PAGE, f"the table should read\n{table()}"


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_commands_fit(command):
    check(compose(*command))


def test_there_are_commands():
    assert len(commands()) >= 4
