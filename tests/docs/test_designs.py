"""docs/designs.md names every recipe of a single stage; its sections are complete, and their commands compose."""

import re
from pathlib import Path

import pytest

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.validate import check, check_groups

PAGE = (Path(__file__).parents[2] / "docs" / "designs.md").read_text(encoding="utf-8")


def test_the_commands_of_the_outlook_fit():
    [table] = re.findall(r"^### What the papers leave for later\n(.*?)^### ", PAGE, re.M | re.S)
    found = [words.split() for words in re.findall(r"`mmrnn (.*?)`", table)]
    assert {words[0] for words in found} == {"train", "search", "bench", "data"}
    for verb, *words in found:
        settings = [word for word in words if "=" in word]
        if verb == "train":
            check(compose(*settings))
        elif verb == "data":
            check_groups(compose(*settings), ("data", "encoder"))


def test_every_recipe_is_named():
    for path in (conf_dir() / "recipe").glob("*.yaml"):
        if "\nstages:\n" in path.read_text(encoding="utf-8"):
            continue  # docs/recipes.md names them
        assert f"`{path.stem}`" in PAGE, path.stem


SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_tells_all(title):
    """Its flow, its cards, what is exact, what differs, how to run it, how to change one thing."""
    text = SECTIONS[title]
    assert re.search(r"^```\n.*->.*\n```$", text, re.M | re.S), "no drawing of its flow"
    for what in ("Cards", "Exact", "Differs", "Run", "Change one thing"):
        assert f"\n- {what}: " in text, what


@pytest.mark.parametrize("title", SECTIONS)
def test_what_a_section_says_to_run_fits(title):
    runs = re.findall(r"`mmrnn (?:train|show) (.*?)`", SECTIONS[title].replace("\n  ", " "))
    assert len(runs) >= 2
    for words in runs:
        check(compose(*words.split()))


@pytest.mark.parametrize("title", SECTIONS)
def test_what_a_section_chooses_is_there(title):
    """`group=card`, and the cards that follow it."""
    named = re.findall(r"`(\w+)=(\w+)`((?:, `\w+`)*)", SECTIONS[title].replace("\n  ", " "))
    for group, first, more in named:
        for name in (first, *re.findall(r"`(\w+)`", more)):
            assert (conf_dir() / group / f"{name}.yaml").is_file(), f"{group}={name}"


def test_every_design_is_listed():
    """`mmrnn list model` has a preset at published size and a tiny one for each."""
    listed = {path.stem for path in (conf_dir() / "model").glob("*.yaml")}
    designs = ("llava", "llava15", "blip2", "minigpt4", "minigptv2", "visualglm", "cogvlm", "qwen_vl", "palm_e", "eve")
    designs += (
        "cobra",
        "fuyu",
        "vila",
        "vila15",
        "flamingo",
        "visualrwkv5",
        "visualrwkv6",
        "visualrwkv_hd",
        "visualrwkv7",
    )
    for design in designs:
        own = {name for name in listed if re.fullmatch(rf"{design}(_\w+)?", name)}
        assert any(name.endswith("_tiny") for name in own), design
        assert any(not name.endswith(("_tiny", "_small")) for name in own), design
