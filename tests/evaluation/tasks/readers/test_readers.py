"""Readers of official files: texts, ids, pairing with references, options, boxes."""

import json

import pytest

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.evaluation.metrics.box_accuracy import box_accuracy
from mmrnn.prompts import RWKVChat, Template, boxes
from tests.evaluation.tasks import official_files
from tests.evaluation.tasks.test_official_files import asked, card, item


def by_id(name, root, prompt=None):
    return {question.id: question for question in asked(name, root, prompt)[1]}


def test_own_questions(tmp_path):
    found = by_id("files", tmp_path)
    assert {id: question.truths for id, question in found.items()} == {
        "1": ("a kite",),
        "2": ("red", "dark red"),
        "3": ("4",),
        "dialogue": ("the second",),
    }
    assert (found["1"].kind, found["1"].record) == ("what", {"question_id": 1})
    assert found["3"].options == ("3", "4")
    assert (found["3"].image, found["3"].sample.images) == ("", ())
    assert found["dialogue"].image == "a.png, b.png"
    assert found["dialogue"].sample.turns[0].text == "First <image>, second <image>: which is wider?"
    assert found["1"].place.endswith("questions.jsonl line 1")


def test_an_image_in_its_line_has_a_short_name(tmp_path):
    (tmp_path / "images").mkdir()
    image = f"data:image/jpeg;base64,{official_files.base64_image(0)}"
    line = {"question_id": 1, "image": image, "text": "What?", "answer": "it"}
    official_files.write_lines(tmp_path / "questions.jsonl", [line])
    [found] = instantiate(card("files")["reader"]).questions(tmp_path, suffix="", prompt=Template())
    assert found.image == found.sample.images[0].key
    assert len(found.image) < 50
    assert found.sample.images[0].open().size == (50, 40)


def test_gqa_keeps_its_text(tmp_path):
    found = by_id("gqa", tmp_path)
    assert found["201307251"].text == f"Is it overcast?\n{official_files.SINGLE}"
    assert found["201307251"].sample.turns[0].text == f"<image>\nIs it overcast?\n{official_files.SINGLE}"
    assert {question.kind for question in found.values()} == {""}


def test_pope_pairs_by_image_and_question(tmp_path):
    _, questions = asked("pope", tmp_path)
    assert {question.kind for question in questions} == {"random", "popular", "adversarial"}
    truths = {question.text.split("\n")[0]: question.truths for question in questions if question.kind == "random"}
    assert truths["Is there a dog in the image?"] == ("yes",)
    assert truths["Is there a random cup in the image?"] == ("no",)
    assert {question.options for question in questions} == {("yes", "no")}


@pytest.mark.parametrize(("name", "lines"), [("textvqa", 2), ("textvqa_ocr", 3)])
def test_questions_of_textvqa_about_one_image(name, lines, tmp_path):
    found = by_id(name, tmp_path)
    assert [*found] == ["003a8ae2#1", "003a8ae2#2", "ff#1"]
    assert found["003a8ae2#2"].truths == ("2011",) * 10
    assert {question.text.count("\n") + 1 for question in found.values()} == {lines}
    assert found["003a8ae2#2"].record == {"question_id": "003a8ae2"}


def test_scienceqa(tmp_path):
    found = by_id("scienceqa", tmp_path)
    assert [(one.truths, one.kind) for one in found.values()] == [
        (("A",), "image"),
        (("B",), "image"),
        (("C",), "text"),
    ]
    assert found["5"].options == ("A", "B")
    assert found["4"].text.startswith("<image>\nContext: N/A\nA. West Virginia")
    assert found["11"].text.startswith("Context: N/A")
    suffix = "Answer with the option's letter from the given choices directly."
    assert found["11"].sample.turns[0].text.endswith(f"C. c\n{suffix}")
    assert found["4"].sample.turns[0].text.endswith(f"D. Oklahoma\n{suffix}")


def test_mme(tmp_path):
    found = by_id("mme", tmp_path)
    assert [*found][:2] == ["artwork/0020.png#1", "artwork/0020.png#2"]
    assert [(one.truths, one.options, one.kind) for one in found.values()][:2] == [
        (("yes",), ("Yes", "No"), "artwork"),
        (("no",), ("Yes", "No"), "artwork"),
    ]
    assert found["OCR/0020.png#1"].record == {"question_id": "OCR/0020.png"}


def test_mmbench(tmp_path):
    task, questions = asked("mmbench", tmp_path)
    first, *others = questions
    assert first.text == 'Read it.\nHow many?\nA. one\nB. two, or "both"\nC. three'
    assert (first.truths, first.options, first.kind) == (("B",), ("A", "B", "C"), "ocr")
    assert others[1].truths == ("A",)
    assert others[-1].text == "Which\nof the two?\nA. =1+1\nB. dog"
    assert first.sample.images[0] is others[0].sample.images[0]
    assert first.image != others[-1].image
    replies = ["B", "C", "B", "A"]  # the third order is wrong
    summary = task.metric([item(*pair) for pair in zip(questions, replies, strict=True)]).summary
    assert (summary["circular"], summary["accuracy"], summary["attribute/accuracy"]) == (0.5, 0.75, 1.0)


def test_the_test_table_of_mmbench_has_no_answers(tmp_path):
    at = official_files.MMBENCH.index("answer")
    rows = [[*official_files.MMBENCH, "comment", "split"], *official_files.mmbench_rows()]
    path = tmp_path / "test.tsv"
    path.write_text("\n".join("\t".join(row[:at] + row[at + 1 :]) for row in rows[:3]))
    reader = instantiate({**card("mmbench")["reader"], "file": "test.tsv", "answers": False})
    assert [one.truths for one in reader.questions(tmp_path, suffix="", prompt=Template())] == [(), ()]


def test_seed_counts_the_letter_alone(tmp_path):
    task, questions = asked("seed", tmp_path)
    assert [one.record["question_id"] for one in questions] == [101669, "v1_3", 7]
    found = task.metric([item(one, f"{one.truths[0]}. it") for one in questions])
    assert found.summary == {"accuracy": 0.0, "image/accuracy": 0.0, "video/accuracy": 0.0, "unread": 3}


def test_captions(tmp_path):
    found = by_id("coco_caption", tmp_path)
    assert {id: one.truths for id, one in found.items()} == {
        str(id): tuple(captions) for id, captions in official_files.CAPTIONS.items()
    }
    assert {one.kind for one in by_id("nocaps", tmp_path).values()} == {"near-domain"}


def test_okvqa(tmp_path):
    found = by_id("okvqa", tmp_path)
    assert found["2971476"].truths == ("pony tail",) * 10
    assert (found["2971476"].image, found["2971476"].kind) == ("COCO_val2014_000000000001.jpg", "other")


WRITERS = {
    "minigptv2": boxes.format_minigptv2,
    "cogvlm": lambda box, *size: boxes.format_cogvlm([box], *size),
    "qwen_vl": lambda box, *size: boxes.format_qwen_vl("it", box, *size).partition("<box>")[2],
    "llava": boxes.format_llava,
}
ASKED = {
    "minigptv2": "[INST] <Img>@</Img> [refer] give me the location of the lady with the {blue} shirt [/INST]",
    "cogvlm": "@Where is the lady with the {blue} shirt? answer in [[x0,y0,x1,y1]] format.",
    "qwen_vl": "<img>@</img><ref>the lady with the {blue} shirt</ref><box>",
    "llava": "Please provide the bounding box coordinate of the region this sentence describes: "
    "the lady with the {blue} shirt. ASSISTANT:",
}


@pytest.mark.parametrize("codec", boxes.CODECS)
def test_grounding_asks_and_reads_as_the_design(codec, tmp_path):
    prompt = instantiate(plain(compose(config=f"prompt/{boxes.CODECS[codec].prompt}"))["prompt"])
    assert prompt.boxes == codec
    found = by_id("refcoco", tmp_path, prompt)
    first = found["val/0"]
    assert (first.box, first.size, first.kind) == ((103.9, 300, 342.0, 422), (640, 480), "val")
    spans = prompt.spans(first.sample.turns, 1)
    assert "".join("@" if span.image else span.text for span in spans).endswith(ASKED[codec])
    replies = [item(one, WRITERS[codec](one.box, *one.size)) for one in found.values()]
    summary = box_accuracy(replies).summary
    assert summary["testA/accuracy"] == summary["accuracy"] == 1.0


def test_lines_of_qwen_vl(tmp_path):
    official_files.write_images(tmp_path / "coco/train2014", "COCO_train2014_000000000001.jpg")
    line = {
        "image": "data/coco/train2014/COCO_train2014_000000000001.jpg",
        "sent": "left dog",
        "width": 90,
        "height": 50,
    }
    official_files.write_lines(tmp_path / "refcoco_testB.jsonl", [{**line, "bbox": [1, 2, 30.5, 40]}])
    reader = instantiate({**card("refcoco")["reader"], "files": ["refcoco_testB.jsonl"]})
    [found] = reader.questions(tmp_path, suffix="", prompt=Template(boxes="llava"))
    assert (found.id, found.box, found.size) == ("testB/0", (1, 2, 30.5, 40), (90, 50))
    assert found.image == "COCO_train2014_000000000001.jpg"


@pytest.mark.parametrize("prompt", [RWKVChat(), Template()])
def test_a_prompt_without_boxes_is_refused(prompt, tmp_path):
    with pytest.raises(
        ValueError, match=r"boxes=None\): choose prompt=minigptv2_refer, .*llava_refer, or the prompt and the form"
    ):
        asked("refcoco", tmp_path, prompt)
    assert len(asked("refcoco", tmp_path, RWKVChat(boxes="llava"))[1]) == 6


def test_large_files_are_read_once(tmp_path, monkeypatch):
    from mmrnn.evaluation.tasks.readers import records

    reads = []
    loads = json.loads
    monkeypatch.setattr(records.json, "loads", lambda text: reads.append(len(text)) or loads(text))
    asked("okvqa", tmp_path)
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("third", "lines"), [("NA", 2), ("None", 2), ("none", 2), ("<NA>", 2), ("na", 4), (" ", 4), ("None of them", 4)]
)
def test_cells_that_pandas_takes_for_empty(third, lines, tmp_path):
    """The options end with the first of them, as in LLaVA; the texts were compared with those of pandas."""
    row = ["1", "Q", "null", "a", "b", third, "d", "A", "N/A", official_files.base64_image(0), *"slcd"]
    official_files.write_table(tmp_path / "mmbench/mmbench_dev_20230712.tsv", [row, ["2", *row[1:]]])
    first, _ = instantiate(card("mmbench")).questions(tmp_path, Template())
    assert first.text.split("\n")[0] == "Q"
    assert first.text.count("\n") == lines
    assert first.kind == ""
    assert first.record["row"]["C"] == ("" if third in ("NA", "None", "<NA>") else third)
