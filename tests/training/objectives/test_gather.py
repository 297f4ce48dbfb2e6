"""BLIP-2's first stage in two processes: losses and gradients are those of one process with all rows."""

import pytest
import torch

from mmrnn.backbones import NoBackbone
from mmrnn.connectors import TextQFormer
from mmrnn.encoders import PatchEmbed
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import BLIP2Pretraining
from mmrnn.training.objectives import blip2
from mmrnn.training.step import forward_for
from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Sequence
from tests.training.distributed.ranks import run_ranks

TEXTS = [[5, 7, 8], [4, 7, 9, 3, 2, 6], [3, 2, 6, 5], [8, 8, 2, 9, 4]]
"""As many targets in the first two as in the last two, for the means over them to be one; lengths differ."""


def model_and_objective():
    torch.manual_seed(0)
    knobs = {"queries": 3, "width": 16, "depth": 2, "heads": 2, "ffn": 16, "vocab": 20, "dropout": 0.0}
    modality = Modality(PatchEmbed(patch=4, width=12, size=8), TextQFormer(12, **knobs))
    model = VLM(NoBackbone(vocab=20), {"image": modality})
    model.objective = BLIP2Pretraining(model, width=8, begin=1)
    return model, model.objective


def batch_of(model, rows):
    layout = model.modalities["image"].layout(8, 8)
    ids = torch.zeros(len(rows), 1 + layout.tokens + 5, dtype=torch.long)
    for place, row in enumerate(rows):
        first, *rest = TEXTS[row]
        line = [first, *[SLOT] * layout.tokens, *rest]
        ids[place, : len(line)] = torch.tensor(line)
    labels = ids.where(ids > 0, IGNORE)
    labels[:, 0] = IGNORE
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    blocks = tuple(ImageSpan(place, 1, layout) for place in range(len(rows)))
    if not rows:
        return Batch(Sequence(torch.zeros(1, 1, dtype=torch.long), labels=torch.full((1, 1), IGNORE)))
    return Batch(Sequence(ids, blocks, labels=labels), {"image": images[rows]})


def next_one(similar, first):
    """Negatives without chance: the next row of all."""
    return (torch.arange(len(similar)) + first + 1) % similar.shape[1]


def losses_and_gradients(rows):
    blip2.negatives = next_one
    model, objective = model_and_objective()
    loss = objective(model, forward_for(model, objective, batch_of(model, rows)))
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path, monkeypatch):
    monkeypatch.setattr(blip2, "negatives", blip2.negatives)  # put back what the other function replaces
    whole = losses_and_gradients([0, 1, 2, 3])
    parts = run_ranks(2, lambda world: losses_and_gradients([[0, 1], [2, 3]][world.rank]), tmp_path)
    assert parts[0].keys() == parts[1].keys() == whole.keys()
    assert not torch.equal(parts[0]["loss"], parts[1]["loss"])
    for name, value in whole.items():
        torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, value, atol=1e-6, rtol=1e-4, msg=name)
    pair, empty = run_ranks(2, lambda world: losses_and_gradients([[0, 1], []][world.rank]), tmp_path)
    alone = losses_and_gradients([0, 1])
    assert empty["loss"] == 0
    for name, value in alone.items():
        torch.testing.assert_close(pair[name] + empty[name], value, atol=1e-6, rtol=1e-4, msg=name)
    assert (alone["loss"] - parts[0]["loss"]).abs() > 1e-2, "the other process's rows are negatives, too"
