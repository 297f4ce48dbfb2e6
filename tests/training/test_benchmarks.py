"""Benchmarks after the training of several ranks: each asks a part, and the answers are those of one process."""

import json

import pytest

from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.evaluation.tasks.answer_lines import ANSWERS
from mmrnn.evaluation.tasks.results import RESULT
from mmrnn.io import jsonl
from mmrnn.training.run import train
from tests.evaluation.tasks import official_files
from tests.training.distributed.ranks import run_ranks

SMALL = (
    *(
        "model=visualrwkv6_tiny",
        "encoder=patch_tiny",
        "data.scenes=12",
        "data.rounds=4",
        "device=cpu",
        "precision=fp32",
    ),
    *("stage.instruct.batch_size=4", "stage.instruct.steps=2", "evaluate.samples=0", "optimizer=adamw"),
)


def _train(world, cfg, out):
    train(cfg, out, world=world)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_ranks_share_a_benchmark(tmp_path, strategy):
    official_files.pope(tmp_path / "root")
    knobs = (*SMALL, "evaluate.tasks=[pope]", f"evaluate.root={tmp_path / 'root'}", "evaluate.batch_size=2")
    one, two = tmp_path / "one", tmp_path / "two"
    train(plain(compose(*knobs)), one)
    run_ranks(2, _train, tmp_path, plain(compose(*knobs, f"strategy={strategy}")), two)
    answers = [jsonl.records(out / "eval" / "pope" / ANSWERS) for out in (one, two)]
    assert [line["text"] for line in answers[0]] == [line["text"] for line in answers[1]]
    assert [line["id"] for line in answers[0]] == [line["id"] for line in answers[1]]
    results = [json.loads((out / "eval" / "pope" / RESULT).read_text()) for out in (one, two)]
    assert results[0]["scores"] == results[1]["scores"]
