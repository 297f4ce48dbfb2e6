"""The moving average of sharded parameters is that of whole ones, and the model computes with it inside `swapped`."""

import torch

from mmrnn.training import AdamW
from mmrnn.training.distributed.strategies import FSDP
from mmrnn.training.ema import EMA
from mmrnn.training.optim import param_groups
from tests.training.distributed.ranks import run_ranks
from tests.training.distributed.test_loss_chunks import batch_of, shares_of, step_of


def averages(world):
    """Averages after three steps, and what the model holds inside `swapped` and after it."""
    step, batches = step_of("token"), [batch_of(30), batch_of(9)]
    if world is not None:
        FSDP().shard(step, "fp32")
    ema = EMA(step.model, [name for name, _ in step.model.named_parameters()], 0.15)
    optimizer = AdamW(param_groups(step.model, lr_mult={}, layer_lr_decay={}), 1e-2)
    ranks = 1 if world is None else world.size
    for _ in range(3):
        shares = shares_of(step, batches, ranks)
        for number in range(2) if world is None else [world.rank]:
            step(batches[number], shares[number])[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(step.model)
    with ema.swapped(step.model):
        inside = state_of(step.model, world)
    return inside, state_of(step.model, world)


def state_of(model, world):
    state = model.state_dict()
    return {name: (value if world is None else value.full_tensor()).clone() for name, value in state.items()}


def test_two_ranks_average_what_one_process_does(tmp_path):
    inside, after = averages(None)
    assert (inside["backbone.output.weight"] - after["backbone.output.weight"]).abs().max() > 1e-4
    for found in run_ranks(2, averages, tmp_path):
        for expected, state in zip((inside, after), found, strict=True):
            for name, value in expected.items():
                torch.testing.assert_close(state[name], value, atol=2e-5, rtol=1e-4, msg=name)
