"""tools/docs_tables.py and tools/docs_prompts.py list every preset, recipe, format and prompt."""

import re

import docs_cards
import docs_prompts
import docs_tables
import pytest
import yaml

from mmrnn.config.compose import compose_with_choices, conf_dir
from mmrnn.weights.registry import FORMATS


def rows(text):
    """First cell -> all cells, of the rows of a table."""
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()[2:]]
    return {re.sub(r"\[(.*)\]\(.*\)", r"\1", row[0]).strip("`"): row for row in cells}


def names(group):
    return {path.stem for path in (conf_dir() / group).glob("*.yaml")}


def test_every_preset_is_listed():
    assert rows(docs_tables.presets()).keys() == names("model")


@pytest.mark.parametrize("model", ["llava15_7b", "cogvlm_17b", "visualrwkv6_1b6"])
def test_a_preset_has_the_cards_that_it_chooses(model):
    _, *parts, besides = rows(docs_tables.presets())[model]
    _, chosen = compose_with_choices(f"model={model}")
    assert parts == [f"`{chosen[group]}`" for group in docs_tables.PARTS]
    for group, option in re.findall(r"`(\w+)=(\w+)`", besides):
        assert chosen[group] == option
    assert ("scan=" in besides) == (chosen["scan"] != "forward")


def test_every_recipe_is_in_one_of_two_tables():
    designs, stages = rows(docs_tables.designs()), rows(docs_tables.stages())
    assert designs.keys() | stages.keys() == names("recipe")
    assert not designs.keys() & stages.keys()
    for _, _, chosen in designs.values():
        assert set(re.findall(r"\[`(\w+)`\]", chosen)) <= stages.keys()


def test_a_stage_has_the_figures_of_its_recipe():
    content = yaml.safe_load((conf_dir() / "recipe" / "llava15_align.yaml").read_text())
    [stage] = content["stage"].values()
    [_, _, data, trains, rate, batch, steps] = rows(docs_tables.stages())["llava15_align"]
    assert (data, trains) == ("`llava`", "`connector`")
    assert [float(one) for one in rate.split(" to ")] == [stage["lr"], content["schedule"]["min_lr"]]
    assert (int(batch), int(steps)) == (stage["batch_size"], stage["steps"])


def test_every_format_is_listed_and_the_written_ones_apart():
    listed = rows(docs_tables.formats())
    assert listed.keys() == {form.part_name for form in FORMATS}
    for form in FORMATS:
        _, opened, written = listed[form.part_name]
        assert f"`{form.name}`" in opened
        assert (f"`{form.name}`" in written) >= form.writable
    read_only = {form.name for form in FORMATS} - {form.name for form in FORMATS if form.writable}
    assert not any(f"`{name}`" in written for name in read_only for _, _, written in listed.values())


def test_every_prompt_is_listed_with_its_turns():
    listed = rows(docs_prompts.turns())
    assert listed.keys() == names("prompt")
    assert {name: tuple(listed[name][1:]) for name in ("first", "sandwich", "last", "qwen35", "blip2_t5_caption")} == {
        "first": ("continues", "yes"),
        "sandwich": ("rewrites", "no"),
        "last": ("continues", "no"),
        "qwen35": ("reads the reply again", "yes"),
        "blip2_t5_caption": ("no dialogue", "yes"),
    }


def test_the_pages_of_groups_begin_with_these_tables():
    pages = dict(docs_cards.pages())
    assert docs_tables.presets() in pages["model.md"].split("## ")[0]
    assert docs_tables.designs() in pages["recipe.md"].split("## ")[0]
    assert docs_tables.stages() in pages["recipe.md"].split("## ")[0]
    assert docs_prompts.turns() in pages["prompt.md"].split("## ")[0]
