"""Conversations: replies equal those of one reading of the whole dialogue, and only new positions are read."""

import re
from functools import partial

import pytest
import torch
import yaml

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data import InMemoryImage
from mmrnn.data.collate import Collator
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.generate import generate, prefill
from mmrnn.prompts import PrefixLM
from mmrnn.types import Prompt, Sample, Turn
from tests.inference.scripted import IMAGE, OTHER, Positions, Script, asked_row, assistant, reply_ids

assert_close = partial(torch.testing.assert_close, atol=2e-5, rtol=1e-4)
CARDS = sorted(path.stem for path in (conf_dir() / "prompt").glob("*.yaml"))
TINY = sorted(path.stem for path in (conf_dir() / "model").glob("*_tiny.yaml"))
WHOLE = {"blip2_t5_tiny", "visualglm_tiny"}
"""Designs that read a prompt as a whole: an encoder, and a bidirectional context."""
EXCHANGES = (("What is it?", "A red kite."), ("Where?", "Above the sea."), ("And the 你好 one?", "It is blue, 3 cm."))
REPLY_AGAIN = {"blip2_t5", "glm", "glm_english", "glm_tiny", "interleaved", "qwen35"}
"""Prompts that write a reply otherwise once a turn follows it."""


class Appended(Prompt):
    """A prompt that writes a dialogue as turns that were appended."""

    def __init__(self, inner):
        self.inner, self.stops = inner, inner.stops

    def spans(self, turns, images):
        return self.inner.appended_spans(turns, images)


@pytest.fixture(scope="module")
def model():
    return assistant("visualrwkv6_tiny").model


def with_prompt(model, card):
    cfg = plain(compose("model=visualrwkv6_tiny", f"prompt={card}", "out=null"))
    return Assistant(model, instantiate(cfg["tokenizer"]), instantiate(cfg["prompt"]))


def whole_batch(used, turns, images):
    """Batch of a whole dialogue that is to be answered."""
    sample = Sample((*turns, Turn("assistant", "")), tuple(images))
    collate = Collator(used.tokenizer, Appended(used.prompt), dict(used.model.modalities), for_generation=True)
    return collate([sample])


@torch.no_grad()
def whole_logits(used, turns):
    """Logits of the first token of a reply, from one reading of the whole dialogue."""
    return used.model.head(prefill(used.model, whole_batch(used, turns, [InMemoryImage(IMAGE)]))[0])[0]


@pytest.mark.parametrize("card", CARDS)
def test_every_prompt_continues_as_it_is_written(model, card):
    used = with_prompt(model, card)
    chat, turns = used.chat(), []
    for number, (question, reply) in enumerate(EXCHANGES):
        if number and isinstance(used.prompt, PrefixLM):
            with pytest.raises(ValueError, match="turns are no caption"):
                chat.say(question)
            return
        images = () if number else (IMAGE,)
        turns.append(Turn("user", question if number else f"<image>\n{question}"))
        ids = reply_ids(chat, question, images, reply)
        begun = len(asked_row(chat, question, *images).ids)
        before = chat.marks[-1].length if number else 0
        with Script(model, ids) as script, Positions(model) as read:
            heard = chat.ask(question, *images)
        assert heard == reply
        assert_close(script.logits[0], whole_logits(used, turns))
        assert read.count == begun - before + len(ids) - 1
        turns.append(Turn("assistant", heard))
        if isinstance(used.prompt, PrefixLM):
            assert not chat.marks
        elif card in REPLY_AGAIN:
            assert begun - 16 <= chat.marks[-1].length < begun + len(ids)
        else:
            assert chat.marks[-1].length == begun + len(ids) - 1


def three_turns(used):
    """Replies of a chat about two images, with those of one reading of the whole dialogue at each turn."""
    chat, texts, images, turns = used.chat(), [], [], []
    for question, shown in (("what is it?", [IMAGE]), ("why so?", []), ("and <image> this?", [OTHER])):
        try:
            asked_row(chat, question, *shown)
        except ValueError:  # images stand before the first question alone
            question, shown = "and this?", []
        text = question if "<image>" in question or not shown else f"<image>\n{question}"
        images += map(InMemoryImage, shown)
        turns.append(Turn("user", text))
        batch = whole_batch(used, turns, images)
        reply = chat.ask(question, *shown, max_new_tokens=5)
        ids = generate(used.model, batch, max_new_tokens=5, finished=used.stop.finished)[0]
        texts.append((reply, used.stop.clean(used.tokenizer.decode(ids))))
        turns.append(Turn("assistant", reply))
    return chat, texts


@pytest.mark.parametrize("name", TINY)
def test_every_design_replies_as_to_the_whole_dialogue(name, tmp_path):
    used = assistant(name)
    chat, texts = three_turns(used)
    assert all(reply == whole and reply for reply, whole in texts)
    chat.save(tmp_path / "chat")
    other = used.resume(tmp_path / "chat")
    assert other.turns == chat.turns
    row = asked_row(chat, "so?")
    with Positions(used.model) as read:
        reply = chat.ask("so?", max_new_tokens=5)
    with Positions(used.model) as again:
        assert other.ask("so?", max_new_tokens=5) == reply
    assert read.count == again.count
    if name in WHOLE:
        assert chat.state is None
        assert read.count >= len(row.ids)
    else:
        assert read.count < len(row.ids)


def backbone_class(card):
    """Class of a card, which the cards that it inherits may name."""
    content = yaml.safe_load((conf_dir() / "backbone" / f"{card}.yaml").read_text(encoding="utf-8"))
    parents = [parent for parent in content.get("defaults", []) if parent != "_self_"]
    return content.get("_target_") or backbone_class(parents[0])


def test_every_class_of_backbone_is_in_a_design():
    texts = [(conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8") for name in TINY]
    used = {backbone_class(card) for text in texts for card in re.findall(r"/backbone: (\w+)", text)}
    every = {backbone_class(path.stem) for path in (conf_dir() / "backbone").glob("*.yaml")}
    assert every - used == {"mmrnn.backbones.NoBackbone"}


@pytest.mark.parametrize("name", ["visualrwkv5_tiny", "visualrwkv6_tiny", "visualrwkv7_tiny"])
def test_turn_fifty_is_as_cheap_as_the_second(name):
    used = assistant(name, "prompt=first")
    chat = used.chat(max_marks=3)
    sizes, counts = set(), set()
    for number in range(50):
        question, images = ("and?", ()) if number else ("what?", (IMAGE,))
        ids = reply_ids(chat, question, images, "a cat")
        with Script(used.model, ids), Positions(used.model) as read:
            assert chat.ask(question, *images) == "a cat"
        sizes.add(sum(mark.state.nbytes for mark in chat.marks) / len(chat.marks))
        counts.add(read.count if number else 0)
    assert len(sizes) == 1
    assert len(counts) == 2
    assert max(counts) < 30
    assert len(chat.marks) == 3
    turns = [Turn(turn.role, turn.text) for turn in chat.turns]
    with Script(used.model, reply_ids(chat, "so?", (), "no")) as script:
        chat.ask("so?")
    assert_close(script.logits[0], whole_logits(used, [*turns, Turn("user", "so?")]))


def test_a_sandwich_is_appended_or_written_anew():
    used = assistant("visualrwkv6_tiny", "prompt=sandwich")

    def read_twice(reread):
        chat = used.chat(reread=reread)
        for question, images in (("what?", (IMAGE,)), ("sure?", ())):
            row = asked_row(chat, question, *images)
            ids = reply_ids(chat, question, images, "a cat")
            with Script(used.model, ids) as script, Positions(used.model) as read:
                chat.ask(question, *images)
        text = used.tokenizer.decode([id if id > 0 else used.tokenizer.encode("@")[0] for id in row.ids])
        return re.sub("@+", "@", text), read.count - len(row.ids) - len(script.ids) + 1, script.logits[0]

    begun = "{}\n@\nwhat?\n\nAssistant: a cat\n\nUser: sure?\n\nAssistant:"
    appended, anew = read_twice(False), read_twice(True)
    assert appended[0] == "User: " + begun.format("what?")
    assert anew[0] == "User: " + begun.format("what?\nsure?")
    # Both rows begin with `User: what?`.
    assert appended[1] < -20 < -8 < anew[1] <= 0
    turns = [Turn("user", "<image>\nwhat?"), Turn("assistant", "a cat"), Turn("user", "sure?")]
    sample = Sample((*turns, Turn("assistant", "")), (InMemoryImage(IMAGE),))
    with torch.no_grad():
        [last] = prefill(used.model, used.reader.collator()([sample]))[0]
        assert_close(anew[2], used.model.head(last))
