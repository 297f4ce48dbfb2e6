"""The page of `mmrnn report` shows the images of disagreements; nothing in the files of a run becomes code in it."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from mmrnn.cli import report
from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.evaluation.accuracy import Answer, question_of, truth_of
from mmrnn.evaluation.reports.answer_file import write_answers
from mmrnn.evaluation.reports.disagreements import MAX_DISAGREEMENTS
from mmrnn.evaluation.reports.run_folder import RESULT
from mmrnn.evaluation.reports.thumbnails import SIDE
from mmrnn.evaluation.tasks.answer_lines import answer_line
from mmrnn.evaluation.tasks.open_task import open_task, reply_settings
from mmrnn.evaluation.tasks.results import TaskRun, write_results

SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def demo(**knobs):
    return {**plain(compose("model=visualrwkv6_tiny").data), **knobs}


def answers(data, replies):
    """Answers to the first held-out samples of each split, for every reply one."""
    found = {}
    for name, split in instantiate(data).held_out(9).items():
        samples = [split[index] for index in range(len(replies))]
        found[name] = [
            Answer(one.kind, question_of(one), truth_of(one), reply or truth_of(one), n, one.id, (one.images[0].key,))
            for n, (one, reply) in enumerate(zip(samples, replies, strict=True))
        ]
    return found


def job(folder, data, found, seed=1):
    result = {
        **{"parameters": 1000, "seconds": 3.0, "loss": 1.5, "accuracy": {}, "objective": 0.5, "choices": {}},
        "config": {"seed": seed, "data": data, "evaluate": {"samples": 9}},
    }
    folder.mkdir()
    (folder / RESULT).write_text(json.dumps(result))
    write_answers(folder, found)
    return folder


READER = {
    **{"_target_": "mmrnn.evaluation.tasks.readers.QuestionLines", "file": "questions.jsonl", "image_folder": "images"},
    "references": {"_target_": "mmrnn.evaluation.tasks.readers.OwnAnswers"},
}
TASK = {"task": {"reader": READER, "suffix": "Say a word."}, "prompt": {"_target_": "mmrnn.prompts.RWKVChat"}}


def task(run, root, lines, settings=TASK):
    folder = run / "eval" / "files"
    folder.mkdir(parents=True)
    result = {"scores": {"f1": 0.5}, "main": "f1", "skipped": {}, "departures": [], "questions": len(lines)}
    (folder / RESULT).write_text(json.dumps({**result, "settings": settings, "root": str(root)}))
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def line(reply, score, image="a.png", number=0):
    return {"id": f"q{number}", "image": image, "prompt": "?", "text": reply, "truth": ["yes"], "score": score}


def page(folder):
    report.main([str(folder)])
    return (folder / "comparison.html").read_text()


def images(text):
    """Images of the page, decoded."""
    found = re.findall(r'<img alt="" src="data:image/jpeg;base64,([^"]*)">', text)
    return [Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB") for one in found]


def distance(one, other):
    """Mean difference of two images in 8-bit values."""
    one, other = (image.convert("L").resize((32, 32)) for image in (one, other))
    return sum(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) / 1024


class Tags(HTMLParser):
    """Tags of a page, and attributes that could run code."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.code = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.code += [name for name, _ in attrs if name.startswith("on")]


def test_images_of_the_demo_are_drawn_again(tmp_path):
    data = demo(scenes=20, size=200)
    job(tmp_path / "0", data, answers(data, ["", "", "no"]))
    job(tmp_path / "1", data, answers(data, ["", "no", ""]), seed=2)
    text = page(tmp_path)
    splits = instantiate(data).held_out(9)
    drawn = [splits[name][index].images[0].open() for name in splits for index in (1, 2)]
    shown = images(text)
    assert len(shown) == len(drawn) == 6
    assert {image.size for image in shown} == {(SIDE, SIDE)}
    for number, image in enumerate(shown):
        distances = [distance(image, one) for one in drawn]
        assert distances.index(min(distances)) == number
        assert min(distances) < 4
    assert "without their image" not in text


def test_images_of_files_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "red"}]
    for n in range(6):
        Image.new("RGB", (400, 100), (40 * n, 0, 0)).save(f"{n}.png")
    Path("all.json").write_text(
        json.dumps([{"id": str(n), "image": f"{n}.png", "conversations": turns} for n in range(6)])
    )
    data = {"_target_": "mmrnn.data.readers.LLaVAJson", "file": "all.json", "holdout": 0.9}
    (tmp_path / "runs").mkdir()
    job(tmp_path / "runs/0", data, answers(data, ["", "", "", "x"]))
    job(tmp_path / "runs/1", data, answers(data, ["x", "", "", ""]), seed=2)
    shown = images(page(tmp_path / "runs"))
    assert [image.size for image in shown] == [(160, 40)] * 2
    Path("all.json").unlink()
    text = page(tmp_path / "runs")
    assert images(text) == []
    assert "2 disagreements are shown without their image; first " in text
    assert "all.json) does not exist" in text


@pytest.fixture
def questions(tmp_path):
    """Questions about two images, one of which is broken, and two runs that answer them."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (32, 16), "blue").save(tmp_path / "images/a.png")
    (tmp_path / "images/b.png").write_bytes(b"no image")
    asked = [{"question_id": f"q{k}", "image": f"{'ab'[k % 2]}.png", "text": "?", "answer": "yes"} for k in range(3)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    (tmp_path / "runs").mkdir()

    def write(settings=TASK):
        for n, scores in enumerate(([1, 1, 0.2], [0, 0.4, 0.2])):
            run = job(tmp_path / "runs" / str(n), demo(), {}, seed=n)
            task(run, tmp_path, [line("x", s, f"{'ab'[k % 2]}.png", k) for k, s in enumerate(scores)], settings)
        return page(tmp_path / "runs")

    return write


def test_images_of_a_task_are_found_by_its_reader(questions):
    text = questions()
    [shown] = images(text)
    assert shown.size == (32, 16)
    assert "1 disagreements are shown without their image; first b.png: " in text
    assert text.index("a.png") < text.index("b.png<"), "the largest difference first"
    assert "x (1.00)" in text
    assert "x (0.40)" in text


def test_a_report_reads_what_an_evaluation_writes(questions, tmp_path):
    card, prompt = plain(compose("task=files", config="eval").task), plain(compose("model=visualrwkv6_tiny").prompt)
    opened = open_task(card)
    asked = opened.questions(tmp_path, instantiate(prompt))
    for n, replies in enumerate((("yes", "no", "no"), ("no", "no", ""))):
        run = job(tmp_path / "runs" / str(n), demo(), {}, seed=n)
        work = TaskRun(name="files", root=tmp_path, folder=run / "eval" / "files", departures=["asked otherwise"])
        work.folder.mkdir(parents=True)
        lines = {one.id: answer_line(one, one.text, reply, "m") for one, reply in zip(asked, replies, strict=True)}
        write_results(opened, work, asked, lines, reply_settings(card, prompt), asked=3, padding=None)
    text = page(tmp_path / "runs")
    assert len(images(text)) == 1
    assert "<td>task files<td>seed=1<td>3<td>2<td>0.0% [" in text
    assert "<td>files<td>seed=1<td>3<td>1<td>accuracy 0.000<td>asked otherwise" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "does not say how its questions are read"),
        ({"task": {"reader": {**READER, "file": "gone.jsonl"}, "suffix": ""}, "prompt": None}, "gone.jsonl"),
        ({"task": {"reader": {"_target_": "os.system"}, "suffix": ""}, "prompt": None}, "outside mmrnn"),
        ({"task": {"reader": TASK["prompt"], "suffix": ""}, "prompt": None}, "RWKVChat reads no questions"),
    ],
)
def test_a_task_that_does_not_open_costs_one_sentence(questions, settings, message):
    text = questions(settings)
    assert "2 disagreements are shown without their image; first a.png: " in text
    assert message in text
    assert "2 of 2 disagreements" in text


def test_the_page_is_bounded(tmp_path):
    for n in range(2):
        run = job(tmp_path / str(n), demo(), {}, seed=n)
        task(run, tmp_path, [line("y" * 10_000, float(n), number=k) for k in range(50)])
    text = page(tmp_path)
    assert f"{MAX_DISAGREEMENTS} of 50 disagreements" in text
    assert text.count("y ... (10,000 characters)") == 2 * MAX_DISAGREEMENTS
    assert len(text) < 40_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "the configuration of the run names no data"),
        ({"_target_": "os.system"}, "outside mmrnn"),
        ({"_target_": "mmrnn.data.readers.Parquet", "file": "https://x.org/a.parquet"}, "the data are in the network"),
        ({"_target_": "mmrnn.data.readers.LLaVAJson", "mistake": 3}, "mistake"),
        ({"_target_": "mmrnn.connectors.Linear"}, "missing"),
        (demo(seed=7), "the data of the run have another sample in its place"),
        (demo(kinds=["digits"]), "the data of the run have no held-out split &#x27;drawings&#x27;"),
    ],
)
def test_data_that_do_not_open_cost_one_sentence(tmp_path, data, message):
    found = {name: answers(demo(), [reply])["drawings"] for name, reply in (("drawings", ""),)}
    job(tmp_path / "0", data, found)
    job(tmp_path / "1", data, {"drawings": answers(demo(), ["x"])["drawings"]}, seed=2)
    text = page(tmp_path)
    assert text.count("1 disagreements are shown without their image; first ") == 1
    assert message in text
    assert "drawings: seed=2, 1 of 1 disagreements" in text


def test_a_hostile_run_puts_no_code_into_the_page(tmp_path):
    hostile = [Answer(SCRIPT, SCRIPT, SCRIPT, reply, 0, SCRIPT, (SCRIPT,)) for reply in (SCRIPT, "x")]
    for n in range(2):
        run = job(tmp_path / str(n), {"_target_": SCRIPT}, {SCRIPT: [hostile[n]]}, seed=n)
        task(run, SCRIPT, [{**line(SCRIPT, n, SCRIPT), "prompt": SCRIPT, "truth": [SCRIPT], "id": SCRIPT}])
        (run / "eval" / "files").rename(run / "eval" / SCRIPT.replace("/", ""))
    text = page(tmp_path)
    found = Tags(text)
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert not found.code
    assert text.count("&lt;script&gt;alert(1)") > 10
    assert "default-src 'none'" in text
