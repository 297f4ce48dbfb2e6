"""Heads that embed images and texts, gathered from a sharded model."""

import pytest
import torch

from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.save import save
from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.training.build import build_step, build_step_on_meta
from mmrnn.training.distributed.materialize import materialize
from mmrnn.training.distributed.strategies import FSDP
from mmrnn.training.distributed.whole import whole_model
from tests.training.distributed.ranks import run_ranks

WORDS = ("model=blip2_stage1", "encoder=eva_tiny", "connector=qformer_text_tiny", "objective=blip2_tiny")


def config():
    return plain(compose(*WORDS, "tokenizer=demo", "weights={}", "out=null"))


def saved(world, folder):
    torch.manual_seed(3)
    step, start = build_step_on_meta(config())
    FSDP().shard(step, "fp32")
    materialize(step, start, "cpu")
    everywhere = whole_model(step.model)
    main = whole_model(step.model, main_only=True)
    if main is not None:
        save(main, folder)
    return everywhere.embedder.state_dict()


@pytest.mark.slow
def test_they_are_those_of_a_plain_model(tmp_path):
    torch.manual_seed(3)
    heads = build_step(config()).objective.state_dict()
    found = run_ranks(2, saved, tmp_path, tmp_path / "model")
    for one in (*found, load_model(tmp_path / "model").embedder.state_dict()):
        assert one.keys() == heads.keys()
        assert all(torch.equal(value, one[name]) for name, value in heads.items())
