"""Documents of text and images: MMC4 and OBELICS, as the prompts write them."""

import json
from base64 import b64encode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data import InterleavedDocuments
from mmrnn.types import Turn
from tests.data.readers.shards import image_bytes, write_tar

RED = image_bytes("red")


def info(name, place, **keys):
    return {"image_name": name, "raw_url": f"http://x/{name}", "matched_text_index": place, "matched_sim": 0.3, **keys}


MMC4 = {
    "url": "http://x",
    "text_list": ["One.", " Two. ", "Three with <image>.", "Four."],
    "image_info": [info("b.png", 2), info("a.png", 1), info("c.png", 2, matched_sim=0.1)],
    "similarity_matrix": [[0.1] * 4] * 3,
}
OBELICS = {
    "texts": ["One.", None, "Two.", None, None, "Three with <image>. Four.", None],
    "images": [None, "a.png", None, "b.png", "c.png", None, "d.png"],
    "metadata": "[]",
}
TURNS = (
    Turn("user", "One. <image>"),
    Turn("assistant", "Two."),
    Turn("user", "<image><image>"),
    Turn("assistant", "Three with <IMAGE>. Four."),
)


@pytest.fixture
def read(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(RED)

    def read(*documents, **knobs):
        path = tmp_path / "d.jsonl"
        path.write_text("\n".join(map(json.dumps, documents)))
        return InterleavedDocuments(file=str(path), **knobs)

    return read


def test_one_document_in_two_forms(read):
    for document in (MMC4, OBELICS):
        [sample] = data = read(document, verify=True)
        assert sample.turns == TURNS
        assert {image.key for image in sample.images} == {"a.png", "b.png", "c.png"}
        assert sample.images[0].key == "a.png"
        assert data.left_out() == []


def written(prompt, sample):
    spans = instantiate(plain(compose(config=f"prompt/{prompt}"))["prompt"]).spans(sample.turns, len(sample.images))
    return [("<image>" if span.image else span.text, span.target) for span in spans]


def test_vila_and_flamingo_write_them(read):
    [sample] = read(MMC4)
    assert written("interleaved", sample) == [
        ("One.", True),
        ("<image>", False),
        ("Two.", True),
        ("<image>", False),
        ("<image>", False),
        ("Three with <IMAGE>. Four.</s>", True),
    ]
    assert written("flamingo", sample) == [
        ("One. ", False),
        ("<image>", False),
        (" Two.<|endofchunk|>", True),
        ("<image>", False),
        ("<image>", False),
        (" Three with <IMAGE>. Four.<|endofchunk|>", True),
    ]


def test_text_alone_is_a_document(read):
    [sample] = read({"text_list": ["One.", "Two."], "image_info": []})
    assert sample.turns == (Turn("user", ""), Turn("assistant", "One. Two."))
    assert written("interleaved", sample) == [("One. Two.</s>", True)]
    with pytest.raises(ValueError, match="a document has too few images"):
        len(read({"texts": ["One."], "images": [None]}, min_images=1))


def test_the_first_images_are_kept(read):
    [sample] = read(MMC4, max_images=1)
    assert [image.key for image in sample.images] == ["b.png"]
    [sample] = read(MMC4, min_similarity=0.24)
    assert [image.key for image in sample.images] == ["a.png", "b.png"]
    [sample] = read(OBELICS, max_images=2)
    assert [image.key for image in sample.images] == ["a.png", "b.png"]


PLACE = "matched_text_index must be the number of a sentence"
NETWORK = "image is in the network: download it and name the file"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("x", "a record must be an object"),
        ({}, "a document must have text_list and image_info (MMC4), or texts and images (OBELICS)"),
        ({"text_list": "x"}, "text_list and image_info must be lists"),
        ({"text_list": ["x"], "image_info": {"a": 1}}, "text_list and image_info must be lists"),
        ({"text_list": ["x"], "image_info": [3]}, "image_info must be a list of objects"),
        ({"text_list": ["x"], "image_info": [info("a.png", 1)]}, PLACE),
        (
            {"text_list": ["x"], "image_info": [info("a.png", -1)]},
            PLACE,
        ),
        (
            {"text_list": ["x"], "image_info": [info("a.png", True)]},
            PLACE,
        ),
        ({"text_list": ["x"], "image_info": [info("a.png", 0, matched_sim="x")]}, "matched_sim must be a number"),
        ({"text_list": ["x"], "image_info": [info(None, 0)]}, "image must be the name of a file"),
        ({"text_list": ["x"], "image_info": [info("../a.png", 0)]}, "image is outside the folder of the images"),
        ({"text_list": ["x"], "image_info": [info("", 0, image_base64="?")]}, "an image in the record is no base64"),
        ({"text_list": [" ", ""], "image_info": []}, "a document has no text"),
        ({"text_list": [3], "image_info": []}, "a sentence must be text"),
        ({"text_list": ["\ud800"], "image_info": []}, "half a character (a lone surrogate)"),
        ({"texts": ["x"], "images": []}, "texts and images must be lists of one length"),
        ({"texts": ["x"], "images": ["a.png"]}, "texts and images both have a value at one place"),
        (
            {"texts": [None, "x"], "images": ["http://x", None]},
            NETWORK,
        ),
        ({"texts": [None], "images": ["a.png"]}, "a document has no text"),
    ],
)
def test_bad_documents_are_named(read, document, reason):
    data = read(MMC4, document)
    assert len(data) == 1
    assert [why for _, why in data.left_out()] == [reason]


def test_images_inside(tmp_path):
    """In base64 (OpenFlamingo's MMC4), as members of a shard, and in a table (OBELICS)."""
    inside = {**MMC4, "image_info": [info("a.png", 1, image_base64=b64encode(RED).decode())]}
    named = {**MMC4, "image_info": [info("a.png", 1)]}
    shard = write_tar(tmp_path / "a.tar", [("0.json", inside), ("1.a.png", RED), ("1.json", named), ("2.json", [])])
    data = InterleavedDocuments(file=shard)
    assert [sample.images[0].open().size for sample in data] == [(4, 3)] * 2
    assert [sample.turns[1].text for sample in data] == ["Two. Three with <IMAGE>. Four."] * 2
    assert data.left_out() == [("2", "a record must be an object")]
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([[None, {"bytes": RED, "path": None}, None]], pa.list_(cell))
    pq.write_table(pa.table({"texts": [["One.", None, "Two."]], "images": images}), tmp_path / "a.parquet")
    [sample] = InterleavedDocuments(file=str(tmp_path / "a.parquet"))
    assert sample.turns == (Turn("user", "One. <image>"), Turn("assistant", "Two."))
    assert sample.images[0].open().size == (4, 3)
