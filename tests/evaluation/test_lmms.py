"""lmms-eval's own command line with a run as its model, and the two classes by themselves."""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from mmrnn.types import Sample, Turn

pytestmark = pytest.mark.skipif(find_spec("lmms_eval") is None, reason="needs lmms-eval: pip install 'mmrnn[lmms]'")

ROOT = Path(__file__).parents[2]
QUESTIONS = ["what is it?", "count the long list of things that are shown here", "a?"] * 2
CANDIDATES = ["family", "officer", "grey grey", "tell me", "no"]
SETTINGS = {"max_new_tokens": 6, "temperature": 0, "do_sample": False, "until": ["\n\n"]}


class Harness:
    """Requests as the evaluator makes them."""

    def __init__(self, tiny_run, docs):
        self.run, self.docs = tiny_run, docs

    def model(self, kind, **options):
        from mmrnn.evaluation import lmms_eval

        made = getattr(lmms_eval, f"{kind}Model")(str(self.run.folder), device="cpu", **options)
        made.task_dict["task"] = {"test": self.docs}
        return made

    def request(self, request_type, *arguments, number=0):
        from lmms_eval.api.instance import Instance

        metadata = {"task": "task", "doc_id": number, "repeats": 1}
        return Instance(request_type, (*arguments, number, "task", "test"), idx=0, metadata=metadata)

    def asked(self, kind, settings=SETTINGS):
        """Request about every record."""
        order = (to_messages, settings) if kind == "Chat" else (settings, lambda doc: doc["images"])
        return [
            self.request("generate_until", doc["question"], *order, number=number)
            for number, doc in enumerate(self.docs)
        ]

    def candidates(self):
        return [
            self.request("loglikelihood", doc["question"], f" {text}", lambda doc: doc["images"], number=number)
            for number, doc in enumerate(self.docs)
            for text in CANDIDATES
        ]


def to_messages(doc):
    content = [*({"type": "image", "url": image} for image in doc["images"]), {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


@pytest.fixture
def harness(tiny_run, images):
    docs = [{"images": [image], "question": text} for image, text in zip(images, QUESTIONS, strict=True)]
    return Harness(tiny_run, docs)


def replies(tiny_run, docs, **options):
    return [tiny_run.assistant.ask(doc["images"][0], doc["question"], **options) for doc in docs]


def test_both_classes_are_found_by_the_entry_point():
    from lmms_eval.models import get_model

    assert get_model("mmrnn").__name__ == "ChatModel"
    assert get_model("mmrnn", force_simple=True).__name__ == "SimpleModel"


def test_replies_are_those_of_the_run_in_every_batch(harness, tiny_run):
    expected = replies(tiny_run, harness.docs, max_new_tokens=6)
    assert len({*expected}) == 6
    for kind in ("Chat", "Simple"):
        for size in (1, 3):
            assert harness.model(kind, batch_size=size).generate_until(harness.asked(kind)) == expected


def test_a_stop_string_ends_a_reply(harness, tiny_run):
    whole = replies(tiny_run, harness.docs, max_new_tokens=6)
    stop = whole[0].split()[1]
    found = harness.model("Chat", batch_size=3).generate_until(harness.asked("Chat", {**SETTINGS, "until": [stop]}))
    assert found == [text.partition(stop)[0].strip() for text in whole]
    assert found[0] != whole[0]


def test_sampled_replies_follow_the_seed_and_not_the_batch(harness):
    drawn = []
    for seed, size in ((1, 1), (1, 4), (2, 4)):
        torch.manual_seed(seed)
        asked = harness.asked("Chat", {"max_new_tokens": 6, "temperature": 1.0, "do_sample": True})
        drawn.append(harness.model("Chat", batch_size=size).generate_until(asked))
    assert drawn[0] == drawn[1]
    assert drawn[1] != drawn[2]


def test_losses_are_those_of_the_run_and_the_smallest_is_the_likeliest(harness, tiny_run):
    from lmms_eval.api.instance import unwrap_generation_output

    scores = [
        tiny_run.assistant.score(Sample((Turn("user", f"<image>\n{text}"),), images), CANDIDATES)
        for text, images in ((doc["question"], sources(doc["images"])) for doc in harness.docs)
    ]
    for likelihood in ("mean", "sum"):
        model = harness.model("Simple", batch_size=3, likelihood=likelihood)
        model.assistant.score = Mock(wraps=model.assistant.score)
        found = [unwrap_generation_output(each)[0] for each in model.loglikelihood(harness.candidates())]
        assert model.assistant.score.call_count == len(harness.docs)
        expected = [(getattr(each, likelihood)(), each.is_greedy()) for group in scores for each in group]
        assert [loss for loss, _ in found] == pytest.approx([-log_prob for log_prob, _ in expected], abs=1e-4)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def sources(images):
    from mmrnn.data.image import image_source

    return tuple(image_source(image) for image in images)


def test_several_images_stand_where_the_task_has_them(harness, images):
    chat, simple = harness.model("Chat"), harness.model("Simple")
    image, text = (lambda url: {"type": "image", "url": url}), (lambda words: {"type": "text", "text": words})
    content = [image(images[0]), image(images[1]), text("is this "), image(images[2]), text("?")]
    talk = [
        {"role": "system", "content": [text("Be short.")]},
        {"role": "user", "content": content},
        {"role": "assistant", "content": [text("no")]},
        {"role": "user", "content": [text("sure?")]},
    ]
    sample = chat.to_sample(harness.request("generate_until", "", lambda doc: talk, SETTINGS).args)
    assert [turn.text for turn in sample.turns] == ["Be short.", "<image><image>\nis this <image>?", "no", "sure?", ""]
    assert [source.image for source in sample.images] == images[:3]

    harness.docs[0]["images"] = images[:2]
    sample = simple.to_sample(harness.asked("Simple")[0].args)
    assert sample.turns[0].text == "<image><image>\nwhat is it?"
    harness.docs[0]["question"] = "from <image> to <image>"
    for kind, model in (("Simple", simple), ("Chat", chat)):
        sample = model.to_sample(harness.asked(kind)[0].args)
        assert sample.turns[0].text == "from <image> to <image>"
        assert [source.image for source in sample.images] == images[:2]
    harness.docs[0] = {"images": [], "question": "what?"}
    assert chat.to_sample(harness.asked("Chat")[0].args) == simple.to_sample(harness.asked("Simple")[0].args)


def test_frames_of_a_video_are_images(harness, images, tmp_path):
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    chat, simple = harness.model("Chat", frames=3), harness.model("Simple", frames=3)
    harness.docs[0] = {"images": [str(tmp_path)], "question": "what happens?"}
    film = [
        {
            "role": "user",
            "content": [{"type": "video", "url": str(tmp_path)}, {"type": "text", "text": "what happens?"}],
        }
    ]
    asked = [
        simple.to_sample(harness.asked("Simple")[0].args),
        chat.to_sample(harness.request("generate_until", "", lambda doc: film, SETTINGS).args),
    ]
    for sample in asked:
        assert sample.turns[0].text == "<image><image><image>\nwhat happens?"
        colours = [source.open().getpixel((0, 0)) for source in sample.images]
        assert colours == [images[index].getpixel((0, 0)) for index in (0, 2, 5)]
    harness.docs[0]["images"] = [[images[0], images[2], images[5]]]  # frames that the task has decoded
    [reply] = simple.generate_until(harness.asked("Simple")[:1])
    assert reply == simple.assistant.answer(asked[:1], max_new_tokens=6)[0]


def test_requests_that_cannot_be_answered(harness):
    from lmms_eval.api.instance import Instance

    simple = harness.model("Simple")
    for given, fault in (
        ("song.mp3", "not this: song.mp3"),
        ({"video": "a.mp4", "video_start": 3}, "not this: {'video'"),
    ):
        harness.docs[0]["images"] = [given]
        with pytest.raises(ValueError, match=fault):
            simple.generate_until(harness.asked("Simple")[:1])
    with pytest.raises(ValueError, match="num_beams=5"):
        simple.generate_until(harness.asked("Simple", {"num_beams": 5}))
    with pytest.raises(ValueError, match="several rounds, which mmrnn does not: leave it out"):
        simple.generate_until_multi_round(harness.asked("Simple"))
    alone = Instance("loglikelihood", ("", "yes"), 0, {"task": "task", "doc_id": 0, "repeats": 1})
    with pytest.raises(ValueError, match="acc_mutual_info"):
        simple.loglikelihood([alone])
    with pytest.raises(ValueError, match="likelihood"):
        harness.model("Simple", likelihood="max")


UTILS = """
def to_visual(doc):
    return [doc["image"].convert("RGB")]
"""

TASK = """
task: {name}
dataset_path: parquet
dataset_kwargs:
  data_files: {{test: {folder}/items.parquet}}
test_split: test
output_type: {output_type}
doc_to_visual: !function utils.to_visual
doc_to_text: question
{rest}
"""

OWN = """
doc_to_target: own
generation_kwargs: {max_new_tokens: 6, temperature: 0, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""

RANK = """
doc_to_target: {gold}
doc_to_choice: options
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def tasks(tiny_run, images, tmp_path_factory):
    """Folder of local tasks: the run's own replies, its likeliest candidate, and its unlikeliest."""
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("tasks")
    rows = []
    for image, question in zip(images, QUESTIONS, strict=True):
        sample = Sample((Turn("user", f"<image>\n{question}"),), sources([image]))
        values = [score.mean() for score in tiny_run.assistant.score(sample, CANDIDATES)]
        own = tiny_run.assistant.ask(image, question, max_new_tokens=6)
        best, worst = values.index(max(values)), values.index(min(values))
        rows.append(
            {"image": image, "question": question, "own": own, "options": CANDIDATES, "best": best, "worst": worst}
        )
    assert len({row["best"] for row in rows}) > 1
    Dataset.from_list(rows).to_parquet(folder / "items.parquet")
    (folder / "utils.py").write_text(UTILS)
    fill = partial(TASK.format, folder=folder)
    (folder / "own.yaml").write_text(fill(name="my_task", output_type="generate_until", rest=OWN))
    for gold in ("best", "worst"):
        rest = RANK.format(gold=gold)
        (folder / f"{gold}.yaml").write_text(fill(name=f"my_{gold}", output_type="multiple_choice", rest=rest))
    return folder


def commands():
    """Commands of the page that start lmms-eval on a user's own tasks: without options, and with the simple class."""
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.S) for line in block.splitlines()]
    return [line for line in lines if "lmms_eval" in line and "--include_path" in line]


def evaluate(command, tasks, tiny_run, out, *more):
    """Results file of a command of the page; the exit code says nothing."""
    program, *words = shlex.split(command)
    assert program == "python"
    places = {
        "my_tasks": str(tasks),
        "results": str(out),
        "pretrained=runs/v6/instruct": f"pretrained={tiny_run.folder}",
    }
    words = [places.get(word, word) for word in words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "hub"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *words, *more], env=environment, cwd=tasks, capture_output=True, text=True, timeout=600
    )
    files = [*out.glob("*/*_results.json")]
    assert len(files) == 1, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(files[0].read_text())["results"], files[0].parent


@pytest.mark.slow
def test_the_command_line_on_local_tasks(tasks, tiny_run, tmp_path):
    """Generation of the run's own replies, chat and simple, batches of several and one; ranking of candidates."""
    chat, simple = commands()
    found, folder = evaluate(chat, tasks, tiny_run, tmp_path / "chat")
    assert found["my_task"]["exact_match,none"] == 1.0
    [samples] = folder.glob("*_samples_my_task.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(lines) == 6
    assert all(line["filtered_resps"] == line["target"] for line in lines)

    found, _ = evaluate(
        simple, tasks, tiny_run, tmp_path / "simple", "--tasks", "my_task,my_best,my_worst", "--batch_size", "1"
    )
    assert found["my_task"]["exact_match,none"] == 1.0
    assert found["my_best"]["acc,none"] == 1.0
    assert found["my_worst"]["acc,none"] == 0.0
