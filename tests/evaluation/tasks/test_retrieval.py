"""Retrieval tasks put to a model that embeds: both directions, broken images, several ranks, and the report."""

import json
from dataclasses import dataclass, field

import pytest
import torch
from PIL import Image

import mmrnn
from mmrnn.cli.main import main
from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.evaluation.reports.task_results import read_task
from mmrnn.evaluation.reports.thumbnails import Thumbnails
from mmrnn.evaluation.tasks import RetrievalTask
from mmrnn.evaluation.tasks.answer_lines import ANSWERS
from mmrnn.evaluation.tasks.readers import CocoCaptions
from mmrnn.evaluation.tasks.results import TaskRun
from mmrnn.evaluation.tasks.run_task import run_task
from mmrnn.inference.embedding import similarity
from mmrnn.io import jsonl
from mmrnn.io.errors import RecordError
from mmrnn.prompts import Template
from mmrnn.types import Ranks
from tests.evaluation.tasks import official_files
from tests.inference.retrieval_run import COLORS, caption, train, write_images

DIRECTIONS = ("text_to_image", "image_to_text")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that has learnt the captions of its images by heart."""
    folder = tmp_path_factory.mktemp("stage1")
    return train(folder, "stage.bridge.lr=0.003", "stage.bridge.train=[encoder,connector,objective]", steps=60)


@pytest.fixture(scope="module")
def assistant(model):
    return mmrnn.load(model)


@pytest.fixture
def root(tmp_path):
    """Images of six colours with two captions each, in COCO's form."""
    write_images(tmp_path / "root" / "images")
    images = [{"id": number, "file_name": f"{color}.png"} for number, color in enumerate(COLORS)]
    texts = [(number, text) for number, color in enumerate(COLORS) for text in (caption(color), f"{color} and so on")]
    annotations = [{"image_id": number, "caption": text} for number, text in texts]
    (tmp_path / "root" / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return tmp_path / "root"


def task(**knobs):
    return RetrievalTask(reader=CocoCaptions(file="captions.json", image_folder="images", question=""), **knobs)


def at(root, name="eval", **more):
    return TaskRun(name="mine", root=root, folder=root / name, **more)


def answers(root, name="eval"):
    return jsonl.records(root / name / ANSWERS)


def test_both_directions(assistant, root):
    found = run_task(assistant, task(), at(root, batch_size=4))
    assert [*found["scores"]] == [f"{way}/recall@{k}" for way in DIRECTIONS for k in (1, 5, 10)]
    assert found["scores"]["image_to_text/recall@10"] == 1.0
    assert (found["questions"], found["images"], found["skipped"]) == (12, 6, {})
    lines = answers(root)
    texts = [line["prompt"] for line in lines]
    images = [f"{color}.png" for color in COLORS]
    scores = similarity(assistant.embed(text=texts), assistant.embed(image=[root / "images" / name for name in images]))
    assert [line["text"] for line in lines] == [images[place] for place in scores.argmax(1).tolist()]
    assert [line["truth"] for line in lines] == [[images[number // 2]] for number in range(12)]
    assert [line["id"] for line in lines][:3] == ["0/0", "0/1", "1/0"]
    hits = [line["text"] == line["truth"][0] for line in lines]
    assert [line["score"] for line in lines] == [float(hit) for hit in hits]
    assert found["scores"]["text_to_image/recall@1"] == pytest.approx(sum(hits) / 12)
    assert sum(hits[::2]) >= 4, "the captions that it has learnt"


def test_the_figure_of_a_task_is_the_mean_of_its_answers(assistant, root):
    found = run_task(assistant, task(main="image_to_text/recall@1"), at(root))
    lines = answers(root)
    assert [line["id"] for line in lines] == [str(number) for number in range(6)]
    assert found["scores"]["image_to_text/recall@1"] == pytest.approx(sum(line["score"] for line in lines) / 6)
    assert all((line["text"] in line["truth"]) == line["score"] for line in lines)
    read = read_task(root / "eval")
    assert read.figure == f"image_to_text/recall@1 {found['scores']['image_to_text/recall@1']:.3f}"
    assert [reply.images for reply in read.replies] == [(f"{color}.png",) for color in COLORS]


def test_a_broken_image_finds_nothing_and_is_not_found(assistant, root):
    whole = run_task(assistant, task(main="text_to_image/recall@10"), at(root, "whole"))
    assert whole["scores"]["text_to_image/recall@10"] == 1.0
    (root / "images" / "green.png").write_text("broken")
    (root / "images" / "red.png").unlink()
    found = run_task(assistant, task(main="text_to_image/recall@10"), at(root))
    assert found["scores"]["text_to_image/recall@10"] == pytest.approx(8 / 12)
    assert found["scores"]["image_to_text/recall@10"] == pytest.approx(4 / 6)
    assert {reason: len(ids) for reason, ids in found["skipped"].items()} == {
        "an image is not there": 2,
        "an image is of no known format": 2,
    }
    assert {line["text"] for line in answers(root)}.isdisjoint({"green.png", "red.png"})
    other = run_task(assistant, task(main="image_to_text/recall@10"), at(root, "other"))
    assert sum(map(len, other["skipped"].values())) == 2
    for image in (root / "images").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match=r"no image of mine can be opened \(an image is not there\)"):
        run_task(assistant, task(), at(root, "none"))


@dataclass
class Several(Ranks):
    """One of several ranks that run one after the other: the later ones hand their batches to the first one."""

    rank: int
    size: int
    others: list = field(default_factory=list)
    given: list = field(default_factory=list)

    def gather(self, value):
        self.given.append(value)
        return [value, *(given[len(self.given) - 1] for given in self.others)]

    def on_main(self, function):
        return function() if self.rank == 0 else None


def test_ranks_share_the_work(assistant, root):
    alone = run_task(assistant, task(), at(root, batch_size=4))
    second = Several(1, 2)
    run_task(assistant, task(), at(root, "two", batch_size=4), ranks=second)
    first = Several(0, 2, [second.given])
    two = run_task(assistant, task(), at(root, "two", batch_size=4), ranks=first)
    assert [len(found) for (found, _), _ in first.given[1:]] == [3, 0, 0]
    assert two["scores"] == alone["scores"]
    assert [line["text"] for line in answers(root, "two")] == [line["text"] for line in answers(root)]


def test_it_stops_and_is_done_anew(assistant, root):
    assert run_task(assistant, task(), at(root), stopped=lambda: True) is None
    assert run_task(assistant, task(), at(root))["questions"] == 12
    with torch.no_grad():
        assistant.model.embedder.image_proj.bias.add_(1)
    try:
        with pytest.raises(ValueError, match="holds answers of other settings"):
            run_task(assistant, task(), at(root))
    finally:
        with torch.no_grad():
            assistant.model.embedder.image_proj.bias.sub_(1)


def test_some_images_alone_are_a_departure(assistant, root):
    found = run_task(assistant, task(), at(root, max_questions=2))
    assert (found["questions"], found["images"]) == (4, 2)
    assert found["departures"] == ["the first 4 of 12 questions are asked"]


@pytest.mark.parametrize("name", ["coco_retrieval", "flickr30k_retrieval", "retrieval"])
def test_official_files(name, model, tmp_path, capsys):
    getattr(official_files, name)(tmp_path / "root")
    words = [f"task={name}", f"run={model}", f"root={tmp_path / 'root'}", f"out={tmp_path / 'out'}", "device=cpu"]
    assert main(["eval", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{name}: text_to_image/recall@1 ")
    assert "(4 questions about 2 images)" in out
    assert "  image_to_text/recall@10 1\n" in out
    assert "not as published" not in out
    read = read_task(tmp_path / "out" / name)
    shown = Thumbnails({}, {name: read})
    assert [len(shown.of(name, reply, 3)) for reply in read.replies] == [1] * 4
    assert shown.faults == []
    assert main(["eval", *words, "rank=true"]) == 2
    assert "compares vectors and generates no replies; leave out rank" in capsys.readouterr().err


def test_after_a_training(tmp_path):
    official_files.flickr30k_retrieval(tmp_path / "root")
    run = train(tmp_path, "evaluate.tasks=[flickr30k_retrieval]", f"evaluate.root={tmp_path / 'root'}", steps=1)
    lines = jsonl.records(run / "eval" / "flickr30k_retrieval" / ANSWERS)
    assert len(lines) == 4
    assert main(["eval", "task=flickr30k_retrieval", f"run={run}", f"root={tmp_path / 'root'}", "device=cpu"]) == 0
    again = jsonl.records(run / "eval" / "flickr30k_retrieval" / ANSWERS)
    assert [line["score"] for line in again] == [line["score"] for line in lines]


def test_a_model_that_embeds_nothing(tmp_path, capsys):
    official_files.coco_retrieval(tmp_path)
    words = ("model=visualrwkv6_tiny", "encoder=patch_tiny", "evaluate.tasks=[coco_retrieval]")
    assert main(["train", *words, f"evaluate.root={tmp_path}", f"out={tmp_path / 'run'}"]) != 0
    assert "this model embeds no images and texts" in capsys.readouterr().err


def test_images_without_captions(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "questions.jsonl").write_text('{"question_id": 1, "text": "What?", "answer": "a"}\n')
    (tmp_path / "images").mkdir()
    card = plain(compose("task=files", config="eval").task)
    made = RetrievalTask(reader=instantiate(card["reader"]))
    with pytest.raises(RecordError, match="retrieval takes one image with captions"):
        made.questions(tmp_path, Template())
