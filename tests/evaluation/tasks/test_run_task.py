"""A task put to a model: replies do not depend on the batch, a killed run resumes, and every question counts."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data.image import ImageFile
from mmrnn.evaluation.metrics.exact_match import exact_match
from mmrnn.evaluation.tasks import Question, QuestionReader, Task
from mmrnn.evaluation.tasks.answer_lines import ANSWERS
from mmrnn.evaluation.tasks.results import RESULT, TaskRun
from mmrnn.evaluation.tasks.run_task import run_task
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.beam_search import BeamSearch
from mmrnn.io import jsonl
from mmrnn.io.lock import FolderInUseError
from mmrnn.model.build import build
from mmrnn.types import Ranks, Sample, Turn

OPTIONS = ("red", "blue")


class Listed(QuestionReader):
    """Questions of a list."""

    def __init__(self, questions):
        self.listed = questions

    def questions(self, root, *, suffix, prompt):
        yield from self.listed


def question(folder, number, images=4):
    path = folder / f"{number % images}.png"
    if not path.exists():
        Image.new("RGB", (20, 20), (60 * (number % images), 100, 0)).save(path)
    text = "which color is it " + "and why " * (number % 5)
    turns = (Turn("user", f"<image>\n{text}"), Turn("assistant", ""))
    return Question(
        id=f"q{number}",
        sample=Sample(turns, (ImageFile(path, path.name),), id=f"q{number}"),
        text=text,
        image=path.name,
        kind="even" if number % 2 else "odd",
        truths=("red",),
        options=OPTIONS,
        record={"question_id": number},
    )


@pytest.fixture(scope="module")
def assistant():
    torch.manual_seed(0)
    cfg = plain(compose("model=visualrwkv6_tiny", "out=null"))
    model = build(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Assistant(model, instantiate(cfg["tokenizer"]), instantiate(cfg["prompt"]))


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "images").mkdir()
    return [question(tmp_path / "images", number) for number in range(13)]


def task(questions, **knobs):
    return Task(reader=Listed(questions), metric=exact_match, main="accuracy", max_new_tokens=4, **knobs)


def at(folder, **more):
    return TaskRun(name="listed", root=folder, folder=folder / "eval", **more)


def texts(folder):
    return {line["id"]: line["text"] for line in jsonl.records(folder / "eval" / ANSWERS)}


def test_replies_do_not_depend_on_the_batch(assistant, questions, tmp_path):
    found = []
    for number, size in enumerate((1, 7, 64)):
        folder = tmp_path / str(size)
        result = run_task(assistant, task(questions), at(folder, batch_size=size, feature_cache_gib=0.5 * number))
        assert result["questions"] == 13
        assert result["images"] == 4
        found.append(texts(folder))
    assert (
        found[0]
        == found[1]
        == found[2]
        == {one.id: assistant.answer([one.sample], max_new_tokens=4)[0] for one in questions}
    )
    assert any(found[0].values())


def test_an_image_is_encoded_once_and_little_is_padded(assistant, tmp_path):
    listed = [question(tmp_path, number, images=20) for number in range(100)]
    encoded = []
    encoder = assistant.model.modalities["image"].encoder
    hook = encoder.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0])))
    with hook:
        result = run_task(assistant, task(listed), at(tmp_path, batch_size=16))
    assert sum(encoded) == 20
    assert result["padding"] < 0.1


def test_windows_hold_as_many_images_as_memory(assistant, questions, tmp_path):
    shape = 4 * 16 * assistant.model.modalities["image"].encoder.width
    result = run_task(assistant, task(questions), at(tmp_path, feature_cache_gib=2.5 * shape / 2**30))
    assert result["questions"] == 13


def test_lines_are_those_of_llava(assistant, questions, tmp_path):
    run_task(assistant, task(questions, suffix="Be short."), at(tmp_path, model="mine"))
    lines = jsonl.records(tmp_path / "eval" / ANSWERS)
    assert [line["id"] for line in lines] == [one.id for one in questions]
    for line, one in zip(lines, questions, strict=True):
        assert line["question_id"] == one.record["question_id"]
        assert line["prompt"] == f"{one.text}\nBe short."
        assert (line["model_id"], line["image"], line["kind"], line["truth"]) == ("mine", one.image, one.kind, ["red"])
        assert line["score"] == float(line["text"] == "red")
        assert line["metadata"] == {}


def test_ranked_replies_are_the_likeliest_options(assistant, questions, tmp_path):
    result = run_task(assistant, task(questions), at(tmp_path, rank=True))
    for one in questions:
        sums = [score.sum() for score in assistant.score(one.sample, OPTIONS)]
        assert texts(tmp_path)[one.id] == OPTIONS[sums.index(max(sums))]
    assert result["departures"] == ["replies are options chosen by their probability, not generated"]
    with pytest.raises(ValueError, match="rank=true: 1 questions of listed have no options \\('q0' first\\)"):
        run_task(assistant, task([replace(questions[0], options=()), *questions[1:]]), at(tmp_path, rank=True))


def test_replies_are_searched_with_beams(assistant, questions, tmp_path):
    beams = BeamSearch(num_beams=3, length_penalty=-1.0, min_new_tokens=2)
    result = run_task(assistant, task(questions), at(tmp_path, beams=beams))
    limit = task(questions).max_new_tokens
    for one in questions:
        assert texts(tmp_path)[one.id] == assistant.answer([one.sample], beams=beams, max_new_tokens=limit)[0]
    assert result["settings"]["beams"] == {"num_beams": 3, "length_penalty": -1.0, "min_new_tokens": 2}
    with pytest.raises(ValueError, match="holds answers of other settings"):
        run_task(assistant, task(questions), at(tmp_path))
    with pytest.raises(ValueError, match="rank=true generates no replies; leave out num_beams"):
        run_task(assistant, task(questions), at(tmp_path / "ranked", rank=True, beams=beams))


def test_what_cannot_be_asked_counts_as_wrong(assistant, questions, tmp_path):
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    (tmp_path / "images" / "2.png").unlink()
    for feature_cache_gib in (4.0, 0.0):
        folder = tmp_path / str(feature_cache_gib)
        result = run_task(assistant, task(questions), at(folder, feature_cache_gib=feature_cache_gib))
        assert result["questions"] == 13
        assert result["skipped"]["an image is of no known format"] == ["q1", "q5", "q9"]
        assert result["skipped"]["an image is not there"] == ["q2", "q6", "q10"]
        scores = {line["id"]: line["score"] for line in jsonl.records(folder / "eval" / ANSWERS)}
        assert len(scores) == 13
        assert {scores[id] for id in ("q1", "q2")} == {0.0}
        assert result["scores"]["accuracy"] == pytest.approx(sum(scores.values()) / 13)


def test_an_empty_reply_is_listed(assistant, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(Assistant, "answer", lambda self, samples, **knobs: ["", *["red"] * (len(samples) - 1)])
    result = run_task(assistant, task(questions), at(tmp_path))
    assert [len(ids) for ids in result["skipped"].values()] == [1]
    assert result["skipped"].keys() == {"the reply is empty"}
    assert result["scores"]["accuracy"] == pytest.approx(12 / 13)


def test_an_image_that_came_back_is_asked_again(assistant, questions, tmp_path):
    content = (tmp_path / "images" / "1.png").read_bytes()
    (tmp_path / "images" / "1.png").unlink()
    assert run_task(assistant, task(questions), at(tmp_path))["skipped"]["an image is not there"]
    (tmp_path / "images" / "1.png").write_bytes(content)
    assert "an image is not there" not in run_task(assistant, task(questions), at(tmp_path))["skipped"]
    assert len(jsonl.records(tmp_path / "eval" / ANSWERS)) == 13


def test_a_limit_is_extended(assistant, questions, tmp_path, monkeypatch):
    first = run_task(assistant, task(questions), at(tmp_path, max_questions=5))
    assert first["departures"] == ["the first 5 of 13 questions are asked"]
    asked = []
    answer = Assistant.answer
    monkeypatch.setattr(
        Assistant, "answer", lambda self, samples, **knobs: asked.extend(samples) or answer(self, samples, **knobs)
    )
    assert run_task(assistant, task(questions), at(tmp_path))["questions"] == 13
    assert len(asked) == 8


def test_answers_of_other_settings_are_refused(assistant, questions, tmp_path):
    run_task(assistant, task(questions), at(tmp_path, card={"task": {"suffix": ""}}))
    with pytest.raises(ValueError, match=r"other settings \(they differ in task.suffix, rank\)"):
        run_task(assistant, task(questions), at(tmp_path, card={"task": {"suffix": "now"}}, rank=True))
    (tmp_path / "eval" / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"holds answers.jsonl without settings.json"):
        run_task(assistant, task(questions), at(tmp_path))
    (tmp_path / "eval" / "settings.json").write_text("[")
    with pytest.raises(ValueError, match=r"settings.json is damaged"):
        run_task(assistant, task(questions), at(tmp_path))


HOLDER = """
from pathlib import Path
from mmrnn.io.lock import lock_folder
with lock_folder(Path({folder!r})):
    print("held", flush=True)
    input()
"""


def test_a_folder_in_use_is_refused(assistant, questions, tmp_path):
    program = HOLDER.format(folder=str(tmp_path / "eval"))
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUseError):
            run_task(assistant, task(questions), at(tmp_path))
        holder.communicate(b"\n", timeout=30)


def test_a_killed_run_resumes(assistant, questions, tmp_path):
    """A line that a killed process left unfinished is dropped, and only missing questions are asked."""
    run_task(assistant, task(questions), at(tmp_path / "whole", batch_size=3))
    run_task(assistant, task(questions), at(tmp_path / "parts", batch_size=3))
    path = tmp_path / "parts" / "eval" / ANSWERS
    whole = path.read_bytes()
    (path.parent / RESULT).unlink()
    for cut in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        run_task(assistant, task(questions), at(tmp_path / "parts", batch_size=3))
        assert path.read_bytes() == whole


def test_a_signal_ends_a_task(assistant, questions, tmp_path):
    stops = iter([False, True])
    assert run_task(assistant, task(questions), at(tmp_path, batch_size=3), stopped=lambda: next(stops)) is None
    assert len(texts(tmp_path)) == 6
    assert not (tmp_path / "eval" / RESULT).exists()


class Recorded(Ranks):
    """One of two ranks, for which the other's part of every gathered value is recorded."""

    size = 2

    def __init__(self, rank, other):
        self.rank, self.other, self.own = rank, iter(other), []

    def gather(self, value):
        self.own.append(value)
        return [value, next(self.other)][:: 1 if self.rank == 0 else -1]

    def on_main(self, call):
        return call()


def test_ranks_share_the_questions(assistant, questions, tmp_path):
    run_task(assistant, task(questions), at(tmp_path / "alone", batch_size=3))
    run_task(assistant, task(questions[:6]), at(tmp_path / "first", batch_size=3))
    lines = jsonl.records(tmp_path / "first" / "eval" / ANSWERS)
    halves = iter([3, (lines[:3], False), (lines[3:], False), ([], False)])
    second = Recorded(1, halves)
    run_task(assistant, task(questions), at(tmp_path / "second", batch_size=3))
    result = run_task(assistant, task(questions), at(tmp_path / "both", batch_size=3), ranks=second)
    assert result["questions"] == 13
    assert texts(tmp_path / "both") == texts(tmp_path / "alone")
    assert [len(part) for part, _ in second.own[1:]] == [3, 3, 1]


KILLED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_run_task import assistant, at, question, task, run_task
folder = Path(sys.argv[2])
listed = [question(folder / "images", number) for number in range(13)]


def track(steps):
    for step in steps:
        print(step, flush=True)
        yield step


run_task(assistant.__wrapped__(), task(listed), at(folder, batch_size=1), track=track)
print("done", flush=True)
"""


@pytest.mark.slow
def test_kill_and_resume(questions, tmp_path):
    """`kill -9` after the third batch."""
    command = [sys.executable, "-c", KILLED, os.path.dirname(__file__), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line == "3\n":
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait(60)
    before = texts(tmp_path)
    assert 3 <= len(before) < 13
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == [*map(str, range(13 - len(before))), "done"]
    assert texts(tmp_path).items() >= before.items()
    assert json.loads((tmp_path / "eval" / RESULT).read_text())["questions"] == 13
