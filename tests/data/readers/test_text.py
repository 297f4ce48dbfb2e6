"""Text alone."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrnn.data import PlainText
from mmrnn.prompts import Interleaved
from mmrnn.types import Turn


def test_four_formats(tmp_path):
    texts = ["one", " two <image>"]
    (tmp_path / "a.txt").write_text("\ufeffone\r\n\n two <image>", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": " two <image>"}\n')
    (tmp_path / "a.json").write_text(json.dumps(texts))
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    for suffix in ("txt", "jsonl", "json", "parquet"):
        data = PlainText(file=str(tmp_path / f"a.{suffix}"))
        assert [sample.turns for sample in data] == [(Turn("user", ""), Turn("assistant", text)) for text in texts]
        assert data[1].images == ()
    [span] = Interleaved().spans(data[1].turns, 0)
    assert (span.text, span.target) == ("two <image></s>", True)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"text": 3}', "a text must be text"),
        (b'{"body": "x"}', "a text must be text"),
        (b'{"text": " "}', "a text is empty"),
        (b'{"text": "\\ud800"}', "half a character (a lone surrogate)"),
        (b'{"text": "\xff"}', "a line is not UTF-8"),
        (b'{"text": "x"', "a line is no JSON"),
    ],
)
def test_bad_texts_are_named(tmp_path, record, reason):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "good", "text": "x"}\n' + record + b"\n")
    data = PlainText(file=str(tmp_path / "a.jsonl"))
    assert [sample.id for sample in data] == ["good"]
    assert data.left_out() == [("#1", reason)]


def test_a_column_has_a_name(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "x"}')
    assert PlainText(file=str(tmp_path / "a.jsonl"), text_column="body")[0].turns[1].text == "x"
    with pytest.raises(ValueError, match=r"data\.file is not set; set it to the file of the texts"):
        len(PlainText())
