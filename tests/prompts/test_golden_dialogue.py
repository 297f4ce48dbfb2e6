"""Dialogues of VisualRWKV-6, in training and when the last reply is asked for, beside the original's dataset code."""

from functools import cache

import pytest
from PIL import Image

import mmrnn
from mmrnn.data.image import image_source
from mmrnn.inference.assistant import Assistant
from mmrnn.prompts import RWKVChat, tokenize
from mmrnn.tokenizers import RWKVWorldTokenizer
from mmrnn.types import IGNORE, SLOT, Layout
from mmrnn.types.sample import Sample, Turn

POSITIONS = {"first": "first", "last": "last", "middle": "sandwich"}
"""Names of the original -> ours."""


@pytest.fixture
def records(golden):
    """Records of two roles in turns, and what the original makes of each image position."""
    roles, found = ["human", "gpt"], []
    for record in golden("visualrwkv6_dialogue")[0]["records"]:
        speakers = [one["from"] for one in record["conversations"]]
        for name, wanted in record["positions"].items():
            if wanted["project"] in ("equal", "intended"):
                assert speakers == roles * (len(speakers) // 2), record["name"]
                texts = [one["value"] for one in record["conversations"]]
                turns = [Turn(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]
                found.append((record, POSITIONS[name], tuple(turns), wanted.get("intended", wanted)))
    return found


@pytest.mark.golden
def test_what_is_read_and_learnt(records):
    tokenizer, count = RWKVWorldTokenizer(), 0
    for record, position, turns, wanted in records:
        spans = RWKVChat(image_position=position).spans(turns, record["pictures"])
        row = tokenize(spans, tokenizer, [Layout(rows=1, cols=1)] * record["pictures"])
        assert row.ids == wanted["ids"], (record["name"], position)
        learnt = [index for index, label in enumerate(row.labels) if label != IGNORE]
        assert learnt == wanted["learnt"], (record["name"], position)
        count += len(turns) > 2
    assert count > 15


@cache
def tiny():
    """A model whose image has several visual tokens."""
    return mmrnn.build(mmrnn.compose("model=visualrwkv6_tiny"))


@pytest.mark.golden
def test_the_assistant_asks_with_the_whole_dialogue(records, monkeypatch):
    asked = []

    def stream(model, batch, **options):
        asked.append(batch.sequence.ids[0].tolist())
        return iter(())

    monkeypatch.setattr("mmrnn.inference.assistant.stream", stream)
    image, count = image_source(Image.new("RGB", (9, 9))), 0
    for record, position, turns, wanted in records:
        assistant = Assistant(tiny(), RWKVWorldTokenizer(), RWKVChat(image_position=position))
        assert assistant.answer([Sample(turns, (image,) * record["pictures"])]) == [""]
        ids, slots = [], 0
        for id in asked[-1]:
            ids += [] if id == SLOT and ids and ids[-1] == SLOT else [id]
            slots += id == SLOT
        # The last run of learnt positions is the reply that is asked for.
        learnt = set(wanted["learnt"])
        reply = max(index for index in learnt if index - 1 not in learnt)
        assert ids == wanted["ids"][:reply], (record["name"], position)
        count += slots > 1
    assert count > 15
