"""tools/docs_cards.py describes every card, its knobs, their defaults and comments."""

import re

import pytest
import yaml
from docs_cards import pages as all_pages
from docs_cards import section

from mmrnn.config.compose import conf_dir


@pytest.fixture(scope="module")
def pages():
    return {name.removesuffix(".md"): text for name, text in all_pages()}


GROUPS = sorted({path.parent.name for path in conf_dir().glob("*/*.yaml")} - {"hydra"})


def test_a_page_for_every_group(pages):
    assert set(pages) == {"index", *GROUPS}
    for group in GROUPS:
        assert f"[{group}]({group}.md)" in pages["index"]


@pytest.mark.parametrize("group", GROUPS)
def test_every_card_and_knob_is_there(pages, group):
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", pages[group], re.M | re.S))
    for path in (conf_dir() / group).glob("*.yaml"):
        content = yaml.safe_load(path.read_text()) or {}
        text = sections[path.stem]
        assert content.get("_target_", "") in text
        for knob, value in content.items():
            if knob not in ("_target_", "_partial_", "defaults"):
                assert re.search(rf"^\| `{knob}\b", text, re.M) or value == {}, knob


CARD = """\
# About it
defaults:
  - other
  - override /scan: snake
_target_: one.Two
_partial_: true
size: 3          # pixels | cells
form: "a # b"    # a text
sizes: [1,
        2]       # of both
parts:           # in turn
  - _target_: one.Three
    width: null
"""


def test_a_section_of_a_card(tmp_path):
    (tmp_path / "mine.yaml").write_text(CARD)
    assert section(tmp_path / "mine.yaml", "About it").splitlines() == [
        *("## `mine`", "", "About it", "", "Class: `one.Two`. From `other`, `scan=snake`.", ""),
        "| knob | default | meaning |",
        "| --- | --- | --- |",
        r"| `size` | `3` | pixels \| cells |",
        '| `form` | `"a # b"` | a text |',
        "| `sizes` | `[1, 2]` | of both |",
        "| `parts` |  | in turn |",
        "| `parts.0._target_` | `one.Three` |  |",
        "| `parts.0.width` | `null` |  |",
    ]
