"""docs/data.md: its table names the readers there are; its commands compose."""

import re
import shlex
from pathlib import Path

import pytest

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.recipe_stages import route_overrides
from mmrnn.config.validate import check

FILE = Path(__file__).parents[2] / "docs" / "data.md"
PAGE = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""


def commands():
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("mmrnn train")]


def test_every_reader_is_in_the_table():
    named = set(re.findall(r"^\| `data=(\w+)` \|", PAGE, re.M))
    cards = {path.stem for path in (conf_dir() / "data").glob("*.yaml")}
    others = {"demo", "mix", "questions", "sentences", "study"}
    assert named == {card for card in cards if card not in others and not card.startswith("mix_")}


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_commands_fit(command):
    check(compose(*route_overrides(command)))


def test_there_are_commands():
    assert len(commands()) > 5
