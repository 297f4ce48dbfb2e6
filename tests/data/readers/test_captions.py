"""Images with captions in four formats."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data import Captions
from mmrnn.types import Turn
from tests.data.readers.shards import image_bytes

RED = image_bytes("red")
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def write(tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(RED)

    def write(name, content):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return str(tmp_path / name)

    return write


COCO = {
    "info": {"year": 2014, "images": [1]},
    "annotations": [
        {"image_id": 22, "id": 7, "caption": "second "},
        {"image_id": 11, "id": 8, "caption": "first"},
        {"image_id": 11, "id": 9, "caption": "first again"},
    ],
    "licenses": [],
    "images": [{"id": 11, "file_name": "1.png", "height": 3}, {"id": 22, "file_name": "2.png"}],
}


def read(data):
    return [(sample.images[0].key, sample.turns[1].text) for sample in data]


def test_four_formats(write, tmp_path):
    rows = [{"file": "1.png", "text": "first"}, {"file": "2.png", "text": "second"}]
    names = {"image_column": "file", "caption_column": "text"}
    expected = [("1.png", "first"), ("2.png", "second")]
    lines = write("a.jsonl", "\n".join(map(json.dumps, rows)))
    table = write("a.tsv", "text\tfile\nfirst\t1.png\nsecond\t2.png\r\n")
    for file in (lines, table):
        assert read(Captions(file=file, verify=True, **names)) == expected
    bare = write("b.tsv", "first\t1.png\nsecond\t2.png")
    assert read(Captions(file=bare, image_column="1", caption_column="0")) == expected
    cells = pa.array([{"bytes": RED, "path": None}], CELL)
    pq.write_table(pa.table({"image": cells, "caption": ["red"]}), tmp_path / "a.parquet")
    [sample] = Captions(file=str(tmp_path / "a.parquet"))
    assert sample.turns == (Turn("user", "<image>"), Turn("assistant", "red"))
    assert sample.images[0].open().size == (4, 3)


def test_captions_of_coco(write):
    data = Captions(file=write("captions.json", COCO))
    assert read(data) == [("2.png", "second"), ("1.png", "first"), ("1.png", "first again")]
    assert [sample.id for sample in data] == ["7", "8", "9"]
    assert len(list(data.images())) == 2
    assert data.left_out() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, r"must have the lists images and annotations \(COCO\)"),
        ({"annotations": {}}, r"must have the lists images and annotations \(COCO\)"),
        ({"annotations": []}, "holds no valid record"),
    ],
)
def test_another_json_file_is_one_sentence(write, change, message):
    with pytest.raises(ValueError, match=message):
        len(Captions(file=write("captions.json", {**COCO, **change})))


@pytest.mark.parametrize("content", ["[]", "3", '{"images": [', '{"images": []', '{"images" 3}', ""])
def test_broken_captions_of_coco(write, content):
    with pytest.raises(ValueError, match=r"captions\.json (must be an object|is not JSON)"):
        len(Captions(file=write("captions.json", content)))


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ({"image_id": 33, "id": 1, "caption": "x"}, "a caption names an image that the file does not list"),
        ({"image_id": "11", "id": 1, "caption": "x"}, "a caption names an image that the file does not list"),
        ({"id": 1, "caption": "x"}, "a caption names an image that the file does not list"),
        ("x", "a caption names an image that the file does not list"),
        ({"image_id": 11, "id": 1}, "a caption must be text"),
        ({"image_id": 11, "id": 1, "caption": " "}, "a caption is empty"),
        ({"image_id": 99, "id": 1, "caption": "x"}, "image must be the name of a file"),
        ({"image_id": 98, "id": 1, "caption": "x"}, "image is outside the folder of the images"),
    ],
)
def test_bad_captions_of_coco_are_named(write, caption, reason):
    images = [*COCO["images"], {"id": 99}, {"id": 98, "file_name": "../x.png"}, {"id": None}, "x"]
    data = Captions(file=write("captions.json", {"images": images, "annotations": [caption, *COCO["annotations"]]}))
    assert len(data) == 3
    assert [why for _, why in data.left_out()] == [reason]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("first", "a row has another number of cells than the line of names"),
        ("1.png\tfirst\tx", "a row has another number of cells than the line of names"),
        ("1.png\t ", "a caption is empty"),
        ("\tfirst", "image must be the name of a file"),
        ("http://x/1.png\tfirst", "image is in the network: download it and name the file"),
    ],
)
def test_bad_rows_are_named(write, line, reason):
    data = Captions(file=write("a.tsv", f"image\tcaption\n1.png\tgood\n{line}\n"))
    assert len(data) == 1
    assert [why for _, why in data.left_out()] == [reason]


@pytest.mark.parametrize(("given", "named"), [("image", "img"), ("url", "image")])
def test_a_missing_column_is_named(write, given, named):
    with pytest.raises(ValueError, match=rf"a record has no {named}; set data\.image_column"):
        len(Captions(file=write("a.jsonl", f'{{"{given}": "1.png", "caption": "x"}}'), image_column=named))


def test_captions_are_written_by_the_prompts(write):
    [sample, *_] = Captions(file=write("captions.json", COCO), questions=("Describe it.",))
    written = {}
    for name in ("plain", "interleaved", "flamingo"):
        prompt = instantiate(plain(compose(config=f"prompt/{name}"))["prompt"])
        spans = prompt.spans(sample.turns, 1)
        written[name] = [("<image>" if span.image else span.text, span.target) for span in spans]
    assert written["plain"] == [("<image>", False), ("second\n", True)]
    assert written["flamingo"] == [("<image>", False), ("\nDescribe it.", False), (" second<|endofchunk|>", True)]
    assert written["interleaved"] == [("<image>", False), ("Describe it. second</s>", True)]
