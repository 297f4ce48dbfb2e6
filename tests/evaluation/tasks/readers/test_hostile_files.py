"""Damaged and hostile files end in one sentence that names file and line; a missing image does not."""

import json
import random
import re
from base64 import b64encode

import pytest

from mmrnn.config.instantiate import instantiate
from mmrnn.io.errors import RecordError
from mmrnn.prompts import Template
from tests.evaluation.tasks import official_files
from tests.evaluation.tasks.test_official_files import CARDS, asked, card


def read(name, root):
    return instantiate(card(name)).questions(root, Template(boxes="llava"))


def files_of(name, root):
    """Files of a benchmark beside its images."""
    getattr(official_files, name)(root)
    found = sorted(path for path in root.rglob("*") if path.suffix in (".json", ".jsonl", ".txt", ".tsv"))
    return [path for path in found if path.suffix != ".txt" or path.parent.name == "count"]  # one of MME's is enough


@pytest.mark.parametrize("name", CARDS)
def test_a_missing_root_and_missing_files(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path / 'none'}; set root="):
        read(name, tmp_path / "none")
    for path in files_of(name, tmp_path):
        if path.name == "llava_vqav2_mscoco_test2015.jsonl":
            continue  # of the submission
        content = path.read_bytes()
        path.unlink()
        with pytest.raises((FileNotFoundError, RecordError), match=re.escape(str(path)) + " is missing"):
            read(name, tmp_path)
        path.write_bytes(content)
    assert read(name, tmp_path)


@pytest.mark.parametrize("name", CARDS)
def test_half_a_file(name, tmp_path):
    """The sentence names the file, and the line where the file has lines."""
    for path in files_of(name, tmp_path):
        if path.name == "llava_vqav2_mscoco_test2015.jsonl":
            continue
        content = path.read_bytes()
        for broken in (content[: len(content) * 2 // 3], b"\xff" + content, b"[" * 100_000, b"7", b"{}", b'"\\ud800"'):
            path.write_bytes(broken)
            with pytest.raises(RecordError, match=re.escape(str(path))) as caught:
                read(name, tmp_path)
            assert len(str(caught.value)) < 600 + len(str(path))
            if path.suffix in (".jsonl", ".tsv", ".txt"):
                assert re.search(r"line \d+|byte \d+|is not in|is missing", str(caught.value)), caught.value
        path.write_bytes(content)


@pytest.mark.parametrize("name", CARDS)
def test_missing_images_are_left_to_the_run(name, tmp_path):
    getattr(official_files, name)(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix not in (".json", ".jsonl", ".txt", ".tsv"):
            path.unlink()
    assert len(read(name, tmp_path)) > 1


def with_line(root, record, name="files"):
    """The questions of a file with one more line."""
    getattr(official_files, name)(root)
    path = root / card(name)["reader"]["file"]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(record) + "\n")
    return read(name, root)


GOOD = {"question_id": "new", "image": "a.png", "text": "What?", "answer": "it"}
LINES = {
    "no id": ({**GOOD, "question_id": None}, "question_id must be text, not"),
    "id of another type": ({**GOOD, "question_id": 1.5}, "question_id must be text"),
    "no text": ({"question_id": "new", "answer": "it"}, "a record has no text"),
    "no answer": ({"question_id": "new", "text": "What?"}, "a record has no answer"),
    "no answers": ({**GOOD, "answers": []}, "a question has no reference"),
    "an answer that is a list": ({**GOOD, "answers": [["it"]]}, "an answer must be text"),
    "one option": ({**GOOD, "options": ["it"]}, "options must be two or more, an answer among them"),
    "options without the answer": ({**GOOD, "options": ["this", "that"]}, "options must be two or more, an answer"),
    "options of numbers": ({**GOOD, "options": ["it", 3]}, "an option must be text"),
    "no object": (["new"], "a record must be an object"),
    "half a character": ({**GOOD, "text": "\ud800"}, "half a character"),
    "outside the folder": ({**GOOD, "image": "../questions.jsonl"}, "image is outside the folder"),
    "absolute": ({**GOOD, "image": "/etc/passwd"}, "image is outside the folder"),
    "in the network": ({**GOOD, "image": "http://localhost/a.png"}, "image is in the network"),
    "no base64": ({**GOOD, "image": "data:image/png;base64,@@"}, "no base64"),
    "an image that is a number": ({**GOOD, "image": 7}, "image must be the name of a file"),
    "an empty conversation": ({"id": "new", "conversations": []}, "a conversation must be a question and its reply"),
    "two questions": (
        {"id": "new", "conversations": [{"value": "x"}] * 4},
        "a conversation must be a question and its",
    ),
    "a conversation without reply": ({"id": "new", "conversations": [{"value": "x"}]}, "a question has no reference"),
    "a turn that is a text": ({"id": "new", "conversations": ["what?"]}, "a record must be an object"),
    "twice": ({**GOOD, "question_id": 1}, "an id comes twice"),
}


@pytest.mark.parametrize("case", LINES)
def test_lines_that_are_refused(case, tmp_path):
    record, reason = LINES[case]
    reason = reason.removesuffix(", not")
    with pytest.raises(RecordError, match=rf"{reason}.*questions\.jsonl line 6") as caught:
        with_line(tmp_path, record)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "record", "file"),
    [
        ("gqa", {"question_id": "9", "image": "n1.jpg", "text": "Who?"}, "testdev_balanced_questions.json"),
        ("pope", {"question_id": "9", "image": "a.jpg", "text": "Is?", "category": "random"}, "coco_pope_*.json"),
        ("textvqa", {"question_id": "9", "image": "9.jpg", "text": "Who?"}, "TextVQA_0.5.1_val.json"),
        ("mme", {"question_id": "count/9.png", "image": "count/9.png", "text": "Is it?"}, "count/9.txt"),
        ("mme", {"question_id": "../../9.png", "image": "count/9.png", "text": "Is it?"}, "'../9.png'"),
        ("seed", {"question_id": 9, "image": "9", "text": "Who?"}, "SEED-Bench.json"),
    ],
)
def test_a_question_without_reference(name, record, file, tmp_path):
    """The sentence names both places: the question's, and the file that should have had the reference."""
    reason = "an answer is outside the folder" if "'" in file else "a question has no reference"
    with pytest.raises(RecordError, match=rf"{reason}.* line \d+: .*{re.escape(file)}"):
        with_line(tmp_path, record, name)


def test_references_that_contradict_each_other(tmp_path):
    official_files.pope(tmp_path)
    path = tmp_path / "pope/coco/coco_pope_random.json"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[0].replace('"yes"', '"no"')]))
    with pytest.raises(RecordError, match=r"a question has two references .*coco_pope_random\.json line 6"):
        read("pope", tmp_path)
    path.write_text("\n".join([*lines, lines[0]]))
    assert len(read("pope", tmp_path)) == 12
    path.write_text("\n".join([*lines, lines[0].replace('"yes"', '"perhaps"')]))
    with pytest.raises(RecordError, match=r"a label must be yes or no .*line 6: 'perhaps'"):
        read("pope", tmp_path)


def table(root, change):
    """The questions of a table whose rows are changed; the names are row 0."""
    rows = [[*official_files.MMBENCH, "comment", "split"], *official_files.mmbench_rows()]
    change(rows)
    official_files.write_table(root / "mmbench/mmbench_dev_20230712.tsv", [])
    with (root / "mmbench/mmbench_dev_20230712.tsv").open("w", newline="") as file:
        official_files.csv.writer(file, delimiter="\t").writerows(rows)
    return read("mmbench", root)


def cell(row, name, value):
    def change(rows):
        rows[row][official_files.MMBENCH.index(name)] = value

    return change


TABLES = {
    "no column": (cell(0, "hint", "tip"), "a table has no column .*line 1: hint"),
    "a row that is short": (lambda rows: rows[2].pop(), "a row has another number of cells than the names .*line 3"),
    "a long index": (cell(1, "index", "1" * 5000), "index must be a whole number .*line 2"),
    "an index that is no number": (cell(1, "index", "x"), "index must be a whole number .*line 2: 'x'"),
    "one option": (cell(2, "B", "nan"), "options must be 2 to 5 .*line 3: 1"),
    "an answer that is no option": (cell(1, "answer", "D"), "the answer must be one of ABC .*line 2: 'D'"),
    "no base64": (cell(3, "image", "@@@"), "an image in the record is no base64 .*line 4"),
    "base64 of a text": (cell(3, "image", b64encode(b"hi").decode()), "an image in the record is none .*line 4"),
    "no image": (cell(4, "image", ""), "an image in the record is none .*line 5"),
    "twice": (cell(2, "index", "241"), "an id comes twice .*line 3: '241'"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_are_refused(case, tmp_path):
    change, reason = TABLES[case]
    with pytest.raises(RecordError, match=reason):
        table(tmp_path, change)


def test_an_image_longer_than_a_cell_of_csv(tmp_path):
    image = b64encode(official_files.BytesIO(b"\x89PNG" + bytes(300_000)).getvalue()).decode()
    with pytest.raises(RecordError, match=r"an image in the record is none .*line 2"):
        table(tmp_path, cell(1, "image", image))


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


BOXES = {
    "three numbers": (lambda one: one["annotations"][0]["bbox"].pop(), "bbox must be four numbers .*annotations 1"),
    "no number": (lambda one: one["annotations"][0]["bbox"].__setitem__(0, "1"), "bbox must be four numbers"),
    "not finite": (lambda one: one["annotations"][0]["bbox"].__setitem__(0, float("nan")), "bbox must be four numbers"),
    "a large number": (lambda one: one["annotations"][0]["bbox"].__setitem__(0, 10**400), "bbox must be four numbers"),
    "two boxes": (lambda one: one["annotations"].append(one["annotations"][0]), "a phrase has two boxes .*ions 3: 1"),
    "no area": (lambda one: one["annotations"][0]["bbox"].__setitem__(2, 0), "a box has no area .*images 2"),
    "no box": (lambda one: one["annotations"].pop(), "a phrase has no box, or comes twice .*images 1: 0"),
    "no phrase": (lambda one: one["images"][1].pop("caption"), "a record has no caption .*images 2"),
    "no width": (lambda one: one["images"][0].update(width=0), "width must be 1 or more .*images 1: 0"),
    "an image that is twice": (lambda one: one["images"].append(one["images"][0]), "or comes twice .*images 3"),
}


@pytest.mark.parametrize("case", BOXES)
def test_boxes_that_are_refused(case, tmp_path):
    change, reason = BOXES[case]
    official_files.refcoco(tmp_path)
    change_json(tmp_path / "refcoco/finetune_refcoco_val.json", change)
    with pytest.raises(RecordError, match=reason):
        read("refcoco", tmp_path)


def test_captions_and_answers_that_are_missing(tmp_path):
    official_files.nocaps(tmp_path)
    path = tmp_path / "nocaps/nocaps_val_4500_captions.json"
    change_json(path, lambda one: one["images"].append({"id": 9, "file_name": "a.jpg"}))
    with pytest.raises(RecordError, match=r"an image has no caption, or comes twice .*images 3: 9"):
        read("nocaps", tmp_path)
    official_files.okvqa(tmp_path)
    path = tmp_path / "okvqa/mscoco_val2014_annotations.json"
    change_json(path, lambda one: one["annotations"].pop())
    with pytest.raises(RecordError, match=r"a question has no reference .*questions 2: '2971476' is not in .*annot"):
        read("okvqa", tmp_path)
    change_json(tmp_path / "okvqa/OpenEnded_mscoco_val2014_questions.json", lambda one: one["questions"].clear())
    with pytest.raises(RecordError, match="there are no questions"):
        read("okvqa", tmp_path)


def test_a_long_line(tmp_path, monkeypatch):
    from mmrnn.evaluation.tasks.readers import records

    monkeypatch.setattr(records, "MAX_LINE", 200)
    with pytest.raises(RecordError, match=r"a line is too long .*line 6: more than 200 bytes"):
        with_line(tmp_path, {**GOOD, "text": "x" * 500})
    assert asked("files", tmp_path)


ODD = (
    None,
    True,
    7,
    -1,
    1.5,
    float("nan"),
    "",
    "x",
    "../x",
    "\ud800",
    [],
    [None],
    ["x", "x"],
    {},
    {"answer": 1},
    10**30,
)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    items = dict(value) if isinstance(value, dict) else [*value]
    items[path[0]] = replaced(value[path[0]], path[1:], new)
    return items


@pytest.mark.parametrize("name", CARDS)
def test_odd_values_anywhere(name, tmp_path):
    """Whatever stands in a file, it is read or refused with a sentence; no other error comes out."""
    draw = random.Random(name)
    found = [path for path in files_of(name, tmp_path) if path.suffix in (".json", ".jsonl")]
    task, refused = instantiate(card(name)), 0
    for _ in range(60 if found else 0):
        path = draw.choice(found)
        content = path.read_bytes()
        lines = path.suffix == ".jsonl" or "pope/coco" in str(path)
        value = [json.loads(line) for line in content.splitlines()] if lines else json.loads(content)
        value = replaced(value, draw.choice([*places(value)][lines:]), draw.choice(ODD))
        path.write_text("".join(json.dumps(one) + "\n" for one in value) if lines else json.dumps(value))
        try:
            questions = task.questions(tmp_path, Template(boxes="llava"))
        except (RecordError, FileNotFoundError) as error:
            refused += "\n" not in str(error)
        else:
            for question in questions:
                json.dumps([question.record, question.truths, question.options, question.image, question.kind]).encode()
        path.write_bytes(content)
    assert refused > 5 or not found
