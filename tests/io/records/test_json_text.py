"""Values of a JSON text and their places, with blocks of any size."""

import io
import json
import random

import pytest

from mmrnn.io.records import json_text
from mmrnn.io.records.json_text import JsonText

PIECES = ["a", "é", '"', "\\", "\u2028", "😀", " ", "\n", "]", "}"]


def value(rng, depth=0):
    kind = rng.randrange(4 if depth > 3 else 6)
    if kind == 0:
        return rng.choice([True, False, None, -5, 0.5, float("-inf")])
    if kind == 1:
        return rng.uniform(-1e9, 1e9)
    if kind == 2:
        return rng.randrange(10**9)
    if kind == 3:
        return "".join(rng.choice(PIECES) for _ in range(rng.randrange(30)))
    if kind == 4:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(key): value(rng, depth + 1) for key in range(rng.randrange(4))}


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 4096])
def test_elements_have_their_places(monkeypatch, block):
    monkeypatch.setattr(json_text, "BLOCK", block)
    rng = random.Random(block)
    for _ in range(60):
        data = [value(rng) for _ in range(rng.randrange(8))]
        content = json.dumps(data, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 2])).encode()
        content = rng.choice([b"", b"\xef\xbb\xbf"]) + content + rng.choice([b"", b"\n "])
        text = JsonText(io.BytesIO(content), "data.json")
        assert text.peek() == "["
        found = list(text.elements())
        text.finish()
        assert [element.value for element in found] == data
        for offset, length, element in found:
            assert json.loads(content[offset : offset + length]) == element


def read(content):
    text = JsonText(io.BytesIO(content), "data.json")
    list(text.elements())
    text.finish()


@pytest.mark.parametrize("block", [1, 5, 4096])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2", r"is not JSON \(Expecting ',' delimiter, byte 5\)"),
        (b"[1 2]", r"is not JSON \(Expecting ',' delimiter, byte 3\)"),
        (b"[1] 2", r"is not JSON \(Extra data, byte 4\)"),
        ('["é", tru]'.encode(), r"is not JSON \(Expecting value, byte 7\)"),
        (b'["a', r"is not JSON \(Unterminated string starting at, byte 1\)"),
        (b"[1, \xff]", r"is not UTF-8 \(byte 4\)"),
        (b"[1" + b"0" * 5000 + b"]", "is not JSON .*digits"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_fault_has_its_place(monkeypatch, block, content, message):
    monkeypatch.setattr(json_text, "BLOCK", block)
    with pytest.raises(ValueError, match=f"data.json {message}" if message[:2] == "is" else message):
        read(content)


def test_a_value_has_a_longest_length(monkeypatch):
    monkeypatch.setattr(json_text, "BLOCK", 8)
    monkeypatch.setattr(json_text, "MAX_VALUE", 100)
    with pytest.raises(ValueError, match="a value of more than 100 characters"):
        list(JsonText(io.BytesIO(b'["' + b"a" * 1000 + b'"]'), "data.json").elements())
