"""Records in LLaVA's form, good, bad and hostile."""

import json

import pytest
import torch
from PIL import Image

from mmrnn.data import ImageError, ImageFile, LLaVAJson
from mmrnn.types import Sample, Turn


def talk(*texts):
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


ROLE = "a turn must be from one of human, user, gpt, assistant, system, developer"
cure = "; to allow absolute paths, set absolute_paths=true"
GOOD = {"id": "good", "conversations": talk("a", "b")}


@pytest.fixture
def write(tmp_path):
    def write(records, name="data.json"):
        path = tmp_path / name
        if isinstance(records, bytes):
            path.write_bytes(records)
        else:
            path.write_text(records if isinstance(records, str) else json.dumps(records))
        return str(path)

    return write


def test_records_become_samples(write, tmp_path):
    (tmp_path / "coco").mkdir()
    Image.new("RGB", (3, 2), "red").save(tmp_path / "coco" / "1.png")
    data = LLaVAJson(
        file=write(
            [
                {"id": 7, "image": "coco/1.png", "conversations": talk("<image>\nWhat?", "Red", "Sure?", "Yes")},
                {"image": ["coco/1.png", "coco/2.png"], "conversations": talk("<image> or <image>?", "First")},
                {"id": "text", "image": None, "conversations": talk("<image> is a tag", "Yes")},
                {"id": "hidden", "image": "coco/1.png", "conversations": talk("What?", "Paris")},
            ]
        )
    )
    assert len(data) == 4
    image = ImageFile(str(tmp_path / "coco" / "1.png"), "coco/1.png")
    turns = (Turn("user", "<image>\nWhat?"), Turn("assistant", "Red"), Turn("user", "Sure?"), Turn("assistant", "Yes"))
    assert data[0] == Sample(turns, (image,), kind="reply", id="7")
    assert data[0].images[0].open().getpixel((0, 0)) == (255, 0, 0)
    assert [image.key for image in data[1].images] == ["coco/1.png", "coco/2.png"]
    assert data[1].id == "#1"
    assert data[2].images == ()
    assert len(data[3].images) == 1
    assert data.skipped == []
    assert data.left_out() == [("hidden", "an image without a tag <image> is not shown")]
    with pytest.raises(ImageError, match=r"2\.png is not there"):
        data[1].images[1].open()


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("text", "a record must be an object (text)"),
        (None, "a record must be an object (null)"),
        ({"id": "x"}, "conversations must be a list of turns"),
        ({"conversations": []}, "conversations must be a list of turns"),
        ({"conversations": {"from": "human"}}, "conversations must be a list of turns"),
        ({"conversations": ["a", "b"]}, "a turn must be an object (turn 1: text)"),
        ({"conversations": talk("a", "b")[::-1]}, "there is no reply to train on"),
        ({"conversations": [*talk("a"), {"from": "bot", "value": "b"}]}, f"{ROLE} (turn 2: 'bot')"),
        ({"conversations": talk("a", 3)}, "the text of a turn must be text (turn 2: a number)"),
        ({"conversations": talk("a", None)}, "the text of a turn must be text (turn 2: null)"),
        ({"conversations": talk("a", " \n")}, "a reply is empty (turn 2)"),
        ({"conversations": talk("a")}, "there is no reply to train on"),
        ({"conversations": talk("a", "\ud800")}, "half a character (a lone surrogate) (turn 2)"),
        (
            {"image": "1.png", "conversations": talk("<image>", "a", "<image>", "b")},
            "one image is tagged in several turns (2 turns)",
        ),
        (
            {"image": ["1.png", "2.png"], "conversations": talk("<image>", "a")},
            "tags and images differ in number (1 tags <image> for 2 images)",
        ),
        *(
            (
                {"observations": {"state": numbers}, "conversations": talk("<state>", "a")},
                "observations: state must be a matrix of finite numbers, a row for every object",
            )
            for numbers in (
                [],
                [[]],
                [1, 2],
                [[1], [1, 2]],
                [[[1]], [1]],
                [["a"]],
                [[True]],
                [[10**400]],
                [[1e39]],
                "x",
                None,
            )
        ),
        (
            {"observations": {"state": [[[1]], [[2]]]}, "conversations": talk("<state>", "a")},
            "1 tags <state> for 2 observations",
        ),
        (
            {"observations": {"image": [[1]]}, "conversations": talk("<image>", "a")},
            "observations: 'image' is no name of a modality such as 'state'",
        ),
        (
            {"observations": [[1]], "conversations": talk("<state>", "a")},
            'observations must be an object: {"state": [[0.1, 0.2], [0.3, 0.4]]}',
        ),
        ({"image": 3, "conversations": talk("<image>", "a")}, "image must be the name of a file (a number)"),
        ({"image": "", "conversations": talk("<image>", "a")}, "image must be the name of a file (empty text)"),
        ({"image": {}, "conversations": talk("<image>", "a")}, "image must be the name of a file (an object)"),
        *(
            (
                {"image": name, "conversations": talk("<image>", "a")},
                f"image is outside the folder of the images{cure if name[0] == '/' else ''} ({name!r})",
            )
            for name in ("../1.png", "/etc/1.png", "a/../../1.png", "..\\1.png", "C:\\1.png", "\\\\host\\1.png")
        ),
    ],
)
def test_bad_records_are_skipped_and_named(write, record, reason):
    data = LLaVAJson(file=write([GOOD, record, GOOD]))
    assert len(data) == 2
    name = record["id"] if isinstance(record, dict) and "id" in record else "#1"
    assert data.skipped == [(name, reason)]


def test_other_modalities_read_numbers(write):
    """A matrix stands for itself, a list of them for as many tags."""
    one, two = [[0.5, 1], [2, 3]], [[4.0, 5.0]]
    talks = [talk("<state>?", "a"), talk("<state> or <state> and <slots>?", "a", "<state>?", "b")]
    seen = [{"state": one}, {"state": [one, two, one], "slots": two}]
    both = zip(talks, seen, strict=True)
    data = LLaVAJson(file=write([{"conversations": talk, "observations": given} for talk, given in both]))
    found = [{name: [x.tolist() for x in given] for name, given in sample.observations.items()} for sample in data]
    assert found == [{"state": [one]}, {"state": [one, two, one], "slots": [two]}]
    assert data[0].observations["state"][0].dtype == torch.float32


def test_the_class_of_an_image(write):
    """It stays with the first image of its sample (`objective=classes`)."""
    shown = {"image": "1.png", "conversations": talk("<image>\nWhat?", "A cat")}
    data = LLaVAJson(
        file=write([{**shown, "class_id": 3}, {**shown, "class_id": "cat"}, {**shown, "class_id": -1}, shown])
    )
    assert [data[index].class_id for index in range(len(data))] == [3, None]
    assert "class_id ('cat') must be a whole number from 0 on" in str([reason for _, reason in data.refused()])


def test_missing_images_can_be_looked_for(write, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").touch()
    records = [
        {"id": name, "image": name, "conversations": talk("<image>", "a")} for name in ("1.png", "2.png", "1.png")
    ]
    folder = str(tmp_path / "images")
    assert len(LLaVAJson(file=write(records), image_folder=folder)) == 3
    data = LLaVAJson(file=write(records), image_folder=folder, verify=True)
    assert len(data) == 2
    assert data.skipped == [("2.png", f"image is not in the folder ('2.png' in {folder})")]


def test_one_record_a_line(write):
    lines = [json.dumps(GOOD), "", "{no json", "[" * 100_000, json.dumps(GOOD) + "\r", '"text"']
    data = LLaVAJson(file=write("\n".join(lines), "data.jsonl"))
    assert len(data) == 2
    assert [name for name, _ in data.skipped] == ["#1", "#2", "#4"]
    assert data.skipped[1][1] == "a line is no JSON (nested too deeply)"


def test_a_byte_order_mark_is_no_fault(write):
    assert len(LLaVAJson(file=write(b"\xef\xbb\xbf" + json.dumps([GOOD]).encode()))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps(GOOD), "must hold a list of records, not an object"),
        ("3", "must hold a list of records, not a number"),
        (b"\xff\xfe[\x00]\x00", "is not UTF-8"),
        ("[]", "holds no valid record$"),
        ("[3]", r"holds no valid record; the first \(#0\): a record must be an object \(a number\)"),
        ("[1" + "0" * 5000 + "]", "data.json"),
    ],
)
def test_a_hostile_file_is_one_sentence(write, content, message):
    with pytest.raises(ValueError, match=message) as raised:
        len(LLaVAJson(file=write(content)))
    assert "\n" not in str(raised.value)


def test_nothing_is_read_before_it_is_needed(write, tmp_path):
    for knobs, message in (
        ({}, "data.file is not set"),
        ({"file": str(tmp_path / "none.json")}, "none.json.* does not exist"),
        ({"file": str(tmp_path), "image_folder": str(tmp_path)}, "cannot be read: Is a directory"),
        ({"file": write([GOOD]), "image_folder": "/nowhere"}, "data.image_folder .* is no folder"),
    ):
        data = LLaVAJson(**knobs)
        with pytest.raises(ValueError, match=message):
            len(data)
