"""Losses over chunks of positions in several processes, which may have different numbers of chunks."""

import pytest
import torch

from mmrnn.backbones import RWKV6
from mmrnn.model.vlm import VLM
from mmrnn.training import LanguageModel
from mmrnn.training.distributed.strategies import DDP, FSDP
from mmrnn.training.step import TrainStep, shares, unit_counts
from mmrnn.types import IGNORE, Batch, Sequence
from tests.training.distributed.ranks import run_ranks


def step_of(reduction):
    torch.manual_seed(0)
    model = VLM(RWKV6(vocab=50, width=16, depth=2, head_size=8, mix_rank=4, decay_rank=4), {})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return TrainStep(model, LanguageModel(reduction=reduction, chunk_size=4, l2wrap=0.1, z_loss=0.01))


def batch_of(count):
    """A row with so many targets, the rest padding; 0: padding alone."""
    ids = torch.randint(0, 50, (1, 40), generator=torch.Generator().manual_seed(count))
    labels, padding = ids.clone(), torch.zeros_like(ids, dtype=torch.bool)
    labels[:, 0], labels[:, count + 1 :], padding[:, count + 1 :] = IGNORE, IGNORE, True
    return Batch(Sequence(ids, labels=labels, padding=padding if count else torch.ones_like(padding)))


def shares_of(step, batches, ranks):
    counts = [unit_counts(step.objective, batch) for batch in batches]
    return shares(counts, [sum(column) for column in zip(*counts, strict=True)], ranks)


def one_process(reduction, targets):
    """Losses of the batches as micro-batches, and the sum of their gradients."""
    step, batches = step_of(reduction), [batch_of(count) for count in targets]
    losses = [step(batch, share)[0] for batch, share in zip(batches, shares_of(step, batches, 1), strict=True)]
    sum(losses).backward()
    return torch.stack(losses).detach(), {name: value.grad for name, value in step.named_parameters()}


def rank_of_two(world, strategy, reduction, targets):
    step, batches = step_of(reduction), [batch_of(count) for count in targets]
    strategy.shard(step, "fp32")
    module = strategy.wrap(step)
    loss, _ = module(batches[world.rank], shares_of(step, batches, world.size)[world.rank])
    loss.backward()
    grads = {name: value.grad for name, value in step.named_parameters()}
    return loss.detach() / world.size, {
        name: value.full_tensor() if strategy.shards else value for name, value in grads.items()
    }


@pytest.mark.parametrize("targets", [(30, 9), (9, 0)], ids=["8_and_3_chunks", "3_and_an_empty_one"])
@pytest.mark.parametrize(
    ("strategy", "reduction"), [(DDP(), "token"), (FSDP(), "sample"), (FSDP(), "token")], ids=["ddp", "sample", "token"]
)
def test_numbers_of_chunks_may_differ(strategy, reduction, targets, tmp_path):
    losses, whole = one_process(reduction, targets)
    for (part_loss, part), loss in zip(
        run_ranks(2, rank_of_two, tmp_path, strategy, reduction, targets), losses, strict=True
    ):
        torch.testing.assert_close(part_loss, loss, atol=1e-6, rtol=1e-5)
        assert part.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(part[name], value, atol=1e-6, rtol=1e-4, msg=name)
