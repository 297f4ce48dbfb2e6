"""Every prompt card writes what `written.json` says, and what is learnt decodes to the replies and their ends.

There `@` is the image, and what is learnt stands between ⟦ and ⟧; `NAME asking` is what a prompt that asks in another
text than it was trained with writes up to the reply. The strings of published designs were compared with
those of the original code in test_template.py and test_designs.py.
"""

import json
import re
from itertools import groupby
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmrnn.config.compose import conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.prompts import Interleaved, PrefixLM, tokenize
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.types import IGNORE, Layout, Turn

CARDS = sorted(path.stem for path in (conf_dir() / "prompt").glob("*.yaml"))
WRITTEN = json.loads((Path(__file__).parent / "written.json").read_text(encoding="utf-8"))
TEXTS = ("<image>\nWhat is it?", "A red kite.", "Where?", "Above the sea.")
OPENINGS = {"<sop>", "\x02", "\x16Assistant:"}
"""Openings of a reply of GLM and ModRWKV, which are trained, too."""


def knobs(name):
    """Knobs of a card, with those that it inherits."""
    content = OmegaConf.load(conf_dir() / "prompt" / f"{name}.yaml")
    parents = [parent for parent in content.pop("defaults", []) if parent != "_self_"]
    return OmegaConf.merge(*map(knobs, parents), content)


def card(name):
    return instantiate(OmegaConf.to_container(knobs(name)))


def dialogue(prompt):
    texts = TEXTS[:2] if isinstance(prompt, PrefixLM) else TEXTS
    return [Turn(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]


def test_all_cards_are_listed():
    assert sorted({name.removesuffix(" asking") for name in WRITTEN}) == CARDS


@pytest.mark.parametrize("name", CARDS)
def test_a_card_writes_its_golden_string(name):
    prompt = card(name)
    spans = prompt.spans(dialogue(prompt), 1)
    shown = "".join("@" if span.image else f"⟦{span.text}⟧" if span.target else span.text for span in spans)
    assert shown == WRITTEN[name]


@pytest.mark.parametrize("name", CARDS)
def test_what_is_learnt_decodes_to_the_replies(name):
    prompt, tokenizer = card(name), DemoTokenizer()
    turns = dialogue(prompt)
    row = tokenize(prompt.spans(turns, 1), tokenizer, [Layout(prefix=3)])
    assert all(label in (IGNORE, id) for id, label in zip(row.ids, row.labels, strict=True))
    runs = [list(run) for learnt, run in groupby(row.labels, lambda label: label != IGNORE) if learnt]
    spans = [tokenizer.decode(run) for run in runs]
    marked = "".join(re.findall("⟦(.*?)⟧", WRITTEN[name], re.DOTALL))
    assert "".join(spans) == marked
    replies = [turn.text for turn in turns if turn.role == "assistant"]
    if isinstance(prompt, Interleaved):
        replies = [" ".join(turn.text.replace("<image>\n", "") for turn in turns)]
    if getattr(prompt, "past_reply", None) is not None:
        replies = replies[-1:]
    end = "".join(stop for stop in prompt.stops if stop in marked)
    assert end
    heard = [part.strip() for part in marked.split(end)]
    for opening in OPENINGS:
        heard = [part.removeprefix(opening) for part in heard]
    assert heard == [*replies, ""], "nothing but the replies and what closes them"


@pytest.mark.parametrize("name", CARDS)
def test_a_prompt_to_be_answered_ends_where_the_reply_begins(name):
    prompt = card(name)
    if isinstance(prompt, PrefixLM | Interleaved):
        turns = [Turn("user", "<image>\na photo"), Turn("assistant", "")]
        begun = "@a photo" + getattr(prompt, "prefix_end", "")
    elif f"{name} asking" in WRITTEN:
        turns, begun = [*dialogue(prompt)[:3], Turn("assistant", "")], WRITTEN[f"{name} asking"]
    else:
        turns = [*dialogue(prompt)[:3], Turn("assistant", "")]
        assert getattr(prompt, "asking", None) is None
        begun = re.sub("[⟦⟧]", "", WRITTEN[name].rpartition("⟦")[0]) + getattr(prompt, "reply_opening", "")
    assert "".join("@" if span.image else span.text for span in prompt.spans(turns, 1)) == begun


EARLIER_TEXT = {"sandwich"}
"""Prompts that write words of a later turn into an earlier one."""


@pytest.mark.parametrize("name", CARDS)
def test_an_appended_turn_leaves_those_before_it_alone(name):
    prompt = card(name)
    turns = [*dialogue(prompt)[:3], Turn("assistant", "")]
    if isinstance(prompt, PrefixLM):
        with pytest.raises(ValueError, match="take a prompt for dialogues"):
            prompt.appended_spans(turns, 1)
        return

    def begun(write, turns):
        return "".join("@" if span.image else span.text for span in write(turns, 1))

    first = [turns[0], Turn("assistant", "")]
    asked = begun(prompt.appended_spans, first).removesuffix(
        getattr(prompt, "reply_prefix", "") + getattr(prompt, "reply_opening", "")
    )
    assert begun(prompt.appended_spans, turns).startswith(asked)
    assert begun(prompt.spans, first) == begun(prompt.appended_spans, first)
    same = begun(prompt.spans, turns) == begun(prompt.appended_spans, turns)
    assert same == (name not in EARLIER_TEXT)
