"""Micro-batches read in pieces by two processes, one of which has fewer pieces, and blocks that are recomputed."""

from functools import partial

import pytest
import torch

from mmrnn.backbones import RWKV7
from mmrnn.connectors import Linear
from mmrnn.encoders import PatchEmbed
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import AdamW, Cosine, LanguageModel, Stage
from mmrnn.training.compiled import compile_blocks
from mmrnn.training.distributed.strategies import DDP, FSDP, Single
from mmrnn.training.distributed.world import World
from mmrnn.training.loop.blank import blank_inputs
from mmrnn.training.loop.ready import Ready
from mmrnn.training.loop.stepper import Stepper
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.step import TrainStep, shares, unit_counts
from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Sequence
from tests.training.distributed.ranks import run_ranks

LENGTHS = (9, 40, 23, 12)
"""Of the micro-batches, of which each process has two. Only the second one has an image."""


def train_step(every):
    torch.manual_seed(0)
    modality = Modality(PatchEmbed(patch=4, size=8, width=8, positions="none"), Linear(8, 16))
    backbone = RWKV7(vocab=50, width=16, depth=3, head_size=8, grad_checkpointing=every)
    model = VLM(backbone, {"image": modality})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return TrainStep(model, LanguageModel(l2wrap=0.1))


def micro_batch(model, length, packed):
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, 50, (1, length), generator=generator)
    labels, spans, images = ids.clone(), (), {}
    labels[:, :3] = IGNORE
    if length == 40:
        spans = (ImageSpan(0, 6, model.modalities["image"].layout(8, 8)),)
        ids[:, 6 : spans[0].stop], labels[:, 6 : spans[0].stop] = SLOT, IGNORE
        images = {"image": torch.randn(1, 3, 8, 8, generator=generator)}
    segments = (torch.arange(length) > length // 3).long()[None] if packed else None
    return Batch(Sequence(ids, spans, labels=labels, segments=segments), images)


def gradients(world, strategy, horizon, every=0, *, packed=True, compiled=False):
    step = train_step(every)
    if compiled:
        compile_blocks(step.model.backbone, backend="eager")
    if world.size > 1:
        step.blank = blank_inputs(step.model, cached=False)
    strategy.shard(step, "fp32")
    batches = [micro_batch(step.model, length, packed) for length in LENGTHS]
    counts = [unit_counts(step.objective, batch) for batch in batches]
    found = shares(counts, [sum(column) for column in zip(*counts, strict=True)], world.size)
    stage = Stage(train=("encoder", "connector", "backbone"), steps=1, max_grad_norm=0.0)
    stage.apply_freezing(step.model)
    groups = param_groups(step.model, lr_mult={}, layer_lr_decay={})
    stepper = Stepper(
        step=step,
        stage=stage,
        optimizer=AdamW(groups, 1e-3),
        schedule=Cosine(),
        strategy=strategy,
        world=world,
        precision="fp32",
        train_chunk=6,
        horizon=horizon,
    )
    own = slice(world.rank * 4 // world.size, (world.rank + 1) * 4 // world.size)
    loss, norm = stepper.attempt(Ready(batches[own], found[own], [], []))
    parts = {name: value.grad for name, value in step.named_parameters() if value.requires_grad}
    return loss, norm, {name: value.full_tensor() if strategy.shards else value for name, value in parts.items()}


@pytest.mark.parametrize(("strategy", "horizon"), [(DDP, 2), (FSDP, 1), pytest.param(FSDP, 99, marks=pytest.mark.slow)])
def test_two_processes_have_the_gradients_of_one(strategy, horizon, tmp_path):
    loss, norm, expected = gradients(World(), Single(), horizon)
    for found_loss, found_norm, found in run_ranks(2, gradients, tmp_path, strategy(), horizon, 2):
        assert found_loss == pytest.approx(loss, rel=1e-6)
        assert found_norm == pytest.approx(norm, rel=1e-5)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DDP, FSDP])
def test_compiled_blocks(strategy, tmp_path):
    """Rows are not packed: every set of lengths would be compiled anew."""
    loss, norm, _ = gradients(World(), Single(), 2, packed=False)
    compiled = partial(gradients, every=1, packed=False, compiled=True)
    for found_loss, found_norm, _ in run_ranks(2, compiled, tmp_path, strategy(), 2, timeout=600):
        assert found_loss == pytest.approx(loss, rel=1e-6)
        assert found_norm == pytest.approx(norm, rel=1e-5)
