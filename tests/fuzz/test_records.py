"""Records near the forms that are read, and damaged files of records: read, or left out for a stated reason."""

import copy
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrnn.data import LLaVAJson
from mmrnn.prompts import RWKVChat, Template
from mmrnn.types import TAG, Turn

pytestmark = pytest.mark.slow

many = settings(
    max_examples=1500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

REASONS = re.compile(
    r"a (record|turn|reply|part of a turn|text|tag|system message|line) |the text of a turn|user and assistant|audio is"
    r"|(image|video|audio) (is|must)|an image |tags and |parts and |one image is|half a character|system must"
    r"|there is no reply|conversations must|observations|\d+ tags <|the assistant begins"
)
"""Beginnings of the reasons that the reader states; an error of Python's has another."""

PIECES = [TAG, TAG, "<video>", "<state>", "a", "\n", " ", "What?", "é", "\0", "\ud800", "{x}", "</s>", "%s"]
NAMES = (
    *("p.png", "a/b.png", "a:b.png", "../p.png", "/etc/passwd", "C:\\p.png", "", "x" * 300, "http://h/p.png", "\0"),
    *("data:image/png;base64,AAAA", "data:image/png;base64,?", "file:///p.png", "\ud800", ".", "..", "//h/p"),
)
KEYS = (
    *("id", "conversations", "messages", "image", "images", "video", "videos", "image_path", "audios", "system"),
    *("observations", "from", "value", "role", "content", "type", "text", "image_url", "path", "url", "weight"),
)
words = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
odd = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), words, st.sampled_from(NAMES), st.just([]), st.just({})),
    *(st.just([[]]), st.just([None]), st.lists(st.sampled_from(NAMES), max_size=3), st.just({"url": "p.png"})),
).map(copy.deepcopy)


@st.composite
def valid(draw):
    """A record in one of the forms that are read."""
    pairs, images, videos = draw(st.integers(1, 3)), draw(st.integers(0, 3)), draw(st.integers(0, 1))
    keys = draw(st.sampled_from([("from", "value"), ("role", "content")]))
    users, replies = draw(st.sampled_from([("human", "gpt"), ("user", "assistant")]))
    files = ["image"] * images + ["video"] * videos
    record = {"id": draw(st.sampled_from(["x", 7, None]))}
    in_parts = draw(st.booleans())
    turns = [{keys[0]: "system", keys[1]: "s"}] if draw(st.booleans()) else []
    turns += [{keys[0]: replies, keys[1]: "Welcome"}] if draw(st.integers(0, 5)) == 5 else []
    for number in range(pairs):
        here, files = (files, []) if number + 1 == pairs else (files[:1], files[1:])
        if in_parts:
            asked = [{"type": kind, kind: f"{kind}.png"} for kind in here] + [{"type": "text", "text": "What?"}]
        else:
            asked = "".join(f"<{kind}>\n" for kind in here) + "What?"
        turns += [{keys[0]: users, keys[1]: asked}, {keys[0]: replies, keys[1]: "A mug"}]
    if not in_parts:
        for kind, count in (("image", images), ("video", videos)):
            if count:
                record[draw(st.sampled_from([kind, f"{kind}s"]))] = [f"{number}.png" for number in range(count)]
    return {**record, draw(st.sampled_from(["conversations", "messages"])): turns}


def places(value, found):
    """Every container in a value and the keys in it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        places(value[key], found)
    return found


@st.composite
def records(draw):
    """A valid record with some places changed."""
    record = draw(valid())
    for _ in range(draw(st.integers(0, 3))):
        within, key = draw(st.sampled_from(places(record, []) or [({}, "x")]))
        change = draw(st.sampled_from(["replace", "remove", "repeat", "text", "add"]))
        if change == "replace":
            within[key] = draw(odd)
        elif change == "remove" and key in (within if isinstance(within, dict) else range(len(within))):
            del within[key]
        elif change == "repeat" and isinstance(within, list):
            within.insert(key, copy.deepcopy(within[key]))
        elif change == "text" and isinstance(within.get(key) if isinstance(within, dict) else within[key], str):
            within[key] += draw(words)
        elif isinstance(within, dict):
            within[draw(st.sampled_from(KEYS))] = draw(odd)
    return record


GOOD = {"id": "good", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}


@given(records(), st.booleans(), st.booleans())
@many
def test_a_record_is_read_or_named(tmp_path, record, verify, absolute_paths):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([GOOD, record]))
    data = LLaVAJson(file=str(path), verify=verify, absolute_paths=absolute_paths, frames=2)
    assert len(data) + len(data.skipped) == 2
    for (_, reason), (_, message) in zip(data.skipped, data.left_out(), strict=False):
        assert REASONS.match(message), message
        assert reason.startswith(message)
    for sample in list(data)[1:]:
        check(sample, record)


def check(sample, record):
    """All images have a place, no tag of theirs is left as a word, and every prompt can write the turns."""
    asked = [turn.text for turn in sample.turns if turn.role == "user"]
    tags = sum(text.count(TAG) for text in asked)
    if not sample.images:
        assert not tags or all(
            not record.get(key) and record.get(key) != [] for key in ("image", "images", "image_path")
        )
    elif len(sample.images) == 1:
        assert sum(TAG in text for text in asked) <= 1
    else:
        assert tags == len(sample.images)
    assert all(isinstance(image.key, str) and image.key.encode() for image in sample.images)
    assert sample.id.encode()
    question = sample.turns[:-1] if sample.turns[-1].role == "assistant" else sample.turns
    for prompt in (Template(), RWKVChat()):
        spans = prompt.spans(sample.turns, len(sample.images))
        assert sum(span.image for span in spans) == (len(sample.images) if tags and sample.images else 0)
        if sample.images:
            assert not any(TAG in span.text for span in spans if not span.target)
        assert prompt.spans((*question, Turn("assistant", "")), len(sample.images))


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5), st.booleans())
@many
def test_a_damaged_file_is_read_or_named(tmp_path, flips, lines):
    records = [{**GOOD, "image": "p.png"}, {"id": 1, "images": ["p.png"] * 2, "messages": GOOD["conversations"]}, GOOD]
    text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
    content = bytearray(text.encode())
    for place, value in flips:
        content[place % len(content)] = value
    path = tmp_path / ("data.jsonl" if lines else "data.json")
    path.write_bytes(content)
    data = LLaVAJson(file=str(path))
    fault = ""
    try:
        size = len(data)
    except ValueError as error:
        fault = str(error)
    if fault:
        assert str(path) in fault
        assert "\n" not in fault
        return
    assert size + len(data.skipped) <= 4 + sum(value in b"\r\n" for _, value in flips)
    assert all(REASONS.match(reason) for _, reason in data.left_out())
