"""AdamW with moments of 8 bits: refused where bitsandbytes is absent, else a step like that of AdamW."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor

from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.validate import check
from mmrnn.training import AdamW, AdamW8bit
from mmrnn.training.optim.schedule import Constant, apply_schedule


def groups(*parameters):
    return [{"params": [one], "hidden": True, "lr_mult": 0.5, "decays": True} for one in parameters]


def test_absent_it_is_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("mmrnn.training.optim.adamw8bit.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"optimizer\._target_: needs .*pip install 'mmrnn\[bitsandbytes\]'"):
        check(compose("optimizer=adamw8bit"))
    with pytest.raises(ImportError, match=r"optimizer=adamw8bit needs bitsandbytes .*'mmrnn\[bitsandbytes\]'"):
        AdamW8bit(groups(nn.Parameter(torch.ones(2))), 0.1)


@pytest.fixture
def stand_in(monkeypatch):
    """AdamW of torch in place of that of bitsandbytes, which has the same arguments."""
    monkeypatch.setitem(
        sys.modules, "bitsandbytes", SimpleNamespace(optim=SimpleNamespace(AdamW8bit=torch.optim.AdamW))
    )


def test_groups_rates_and_weight_decay_reach_it(stand_in):
    weights = [nn.Parameter(torch.full((3,), 2.0)) for _ in range(2)]
    knobs = {"betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1, "weight_decay_final": 0.01}
    made = [kind(groups(weight), 0.1, **knobs) for kind, weight in zip((AdamW, AdamW8bit), weights, strict=True)]
    for step in range(3):
        for one, weight in zip(made, weights, strict=True):
            apply_schedule(one, Constant(), step, steps=3, lr=0.1)
            weight.grad = torch.tensor([1.0, -2.0, 3.0]) * (step + 1)
            one.step()
            one.zero_grad()
    torch.testing.assert_close(*weights)
    assert made[1].param_groups[0]["weight_decay"] == pytest.approx(0.01)
    again = AdamW8bit(groups(weights[1]), 0.1, **knobs)
    again.load_state_dict(made[1].state_dict())
    assert again.param_groups[0]["lr"] == made[1].param_groups[0]["lr"] == 0.05


def test_shards_are_refused(stand_in):
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    try:
        weight = distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)), [Replicate()])
        with pytest.raises(ValueError, match="strategy=fsdp shards them; choose strategy=ddp or optimizer=adamw"):
            AdamW8bit(groups(nn.Parameter(weight)), 0.1)
    finally:
        torch.distributed.destroy_process_group()


def test_steps_are_near_those_of_adamw():
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    start, weights = torch.randn(64, 128), []
    for kind in (AdamW, AdamW8bit):
        weight = nn.Parameter(start.clone())
        optimizer = kind(groups(weight), 1e-2)
        for _ in range(20):
            weight.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(weight.detach())
    moved = (weights[0] - start).norm()
    assert moved > 1
    assert (weights[1] - weights[0]).norm() < 0.1 * moved
