"""docs/designs.md names every preset and every recipe, and its table is that of the presets."""

from pathlib import Path

import yaml

from mmrnn.config import conf_dir

PAGE = (Path(__file__).parents[2] / "docs" / "designs.md").read_text(encoding="utf-8")
SHOWN = ("encoder", "connector", "backbone", "prompt")


def table() -> str:
    """Every preset with the cards that it chooses."""
    rows = ["| model | encoder | connector | backbone | prompt | besides |", "|---|---|---|---|---|---|"]
    for path in sorted((conf_dir() / "model").glob("*.yaml")):
        chosen = {}
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]:
            [(key, option)] = entry.items()
            chosen[key.removeprefix("override /")] = option
        besides = [f"{key}={value}" for key, value in chosen.items() if key not in (*SHOWN, "tokenizer")]
        besides = [one for one in besides if one != "scan=forward"]
        cells = [path.stem, *(chosen[key] for key in SHOWN), ", ".join(besides)]
        rows.append("| " + " | ".join(f"`{cell}`" if cell else "" for cell in cells) + " |")
    return "\n".join(rows)


def test_the_table_is_that_of_the_presets():
    assert f"<!-- presets -->\n{table()}\n<!-- /presets -->" in PAGE, f"the table should read\n{table()}"


def test_every_recipe_is_named():
    for path in (conf_dir() / "recipe").glob("*.yaml"):
        assert f"`{path.stem}`" in PAGE, path.stem
