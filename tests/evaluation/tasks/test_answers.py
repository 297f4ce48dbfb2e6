"""Tasks with options are ranked, and answers have what official scorers look for."""

import json

import pytest
import torch

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.evaluation.tasks.answer_lines import ANSWERS
from mmrnn.evaluation.tasks.results import RESULT, TaskRun
from mmrnn.evaluation.tasks.run_task import run_task
from mmrnn.inference.assistant import Assistant
from mmrnn.io import jsonl
from mmrnn.model.build import build
from mmrnn.prompts import RWKVChat
from tests.evaluation.tasks import official_files
from tests.evaluation.tasks.test_official_files import card

OPTIONS = {"mmbench", "mmbench_cn", "mme", "pope", "scienceqa", "seed"}


@pytest.fixture(scope="module")
def assistant():
    torch.manual_seed(0)
    cfg = plain(compose("model=visualrwkv6_tiny", "out=null"))
    prompt = RWKVChat(image_position="sandwich", boxes="llava")
    return Assistant(build(cfg).eval(), instantiate(cfg["tokenizer"]), prompt)


def put(name, assistant, root, **settings):
    """The result of a task, and the lines of its answers."""
    task = instantiate({**card(name), "max_new_tokens": 2})
    run = TaskRun(name=name, root=root, folder=root / "out", **settings)
    result = run_task(assistant, task, run)
    assert result == json.loads((root / "out" / RESULT).read_text())
    return result, jsonl.records(root / "out" / ANSWERS)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_ranking(name, assistant, tmp_path):
    getattr(official_files, name)(tmp_path)
    result, lines = put(name, assistant, tmp_path, rank=True)
    assert {line["text"] for line in lines} <= {*"ABCDE", "Yes", "No", "yes", "no"}
    assert result["scores"].get("unread", 0) == 0


def test_answers_are_as_the_official_scorers_look_for_them(assistant, tmp_path):
    """ScienceQA's looks for the tag of an image, TextVQA's for two or three lines, and MME's for the id of the file."""
    for name in ("scienceqa", "textvqa", "textvqa_ocr", "mme"):
        getattr(official_files, name)(tmp_path / name)
    prompts = [line["prompt"] for line in put("scienceqa", assistant, tmp_path / "scienceqa")[1]]
    assert ["<image>" in prompt for prompt in prompts] == [True, True, False]
    for name, lines in (("textvqa", 2), ("textvqa_ocr", 3)):
        for line in put(name, assistant, tmp_path / name)[1]:
            assert line["prompt"].count("\n") == lines - 1
            assert line["question_id"] in ("003a8ae2", "ff")
    for line in put("mme", assistant, tmp_path / "mme")[1]:
        assert line["question_id"].endswith("/0020.png")
        assert line["prompt"].endswith("\nAnswer the question using a single word or phrase.")


def test_a_missing_image_counts_as_wrong(assistant, tmp_path):
    official_files.gqa(tmp_path)
    (tmp_path / "gqa/data/images/n1.jpg").unlink()
    result, _ = put("gqa", assistant, tmp_path)
    assert result["questions"] == 3
    assert result["skipped"]["an image is not there"] == ["201307251", "2"]
