"""Exponential moving average of the parameters that learn."""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from mmrnn.training.ema import EMA


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))


def train(made, ema, steps):
    """Random updates; the values of the averaged parameters after each."""
    history = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in made.parameters():
                whole = torch.randn(parameter.shape, generator=generator)
                sharded = isinstance(parameter, DTensor)
                parameter.add_(
                    distribute_tensor(whole, parameter.device_mesh, parameter.placements) if sharded else whole
                )
        ema.update(made)
        history.append({name: value.detach().clone() for name, value in made.named_parameters()})
    return history


def test_the_average_is_that_of_the_formula():
    made = model()
    ema = EMA(made, ["0.weight", "1.bias"], 0.5)
    expected = {name: value.detach().double() for name, value in made.named_parameters() if name in ema.average}
    assert list(expected) == ["0.weight", "1.bias"]
    for number, parameters in enumerate(train(made, ema, 12)):
        kept = min(0.5, (1 + number) / (10 + number))
        expected = {name: kept * value + (1 - kept) * parameters[name].double() for name, value in expected.items()}
    assert ema.updates == 12
    for name, value in expected.items():
        torch.testing.assert_close(ema.average[name].double(), value, atol=1e-6, rtol=1e-6)


def test_exchanged_inside_and_back_after_even_after_an_error():
    made = model()
    ema = EMA(made, ["0.weight"], 0.9)
    train(made, ema, 3)
    own, average = made[0].weight.detach().clone(), ema.average["0.weight"].clone()
    other, parameter = made[1].weight.detach().clone(), made[0].weight
    assert not torch.equal(own, average)

    def look():
        with ema.swapped(made):
            assert torch.equal(made[0].weight, average)
            assert torch.equal(made[1].weight, other)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look()
    assert made[0].weight is parameter
    assert parameter.requires_grad
    assert torch.equal(parameter, own)
    assert torch.equal(ema.average["0.weight"], average)


def test_tensors_written_into_restore_an_average():
    made, again = model(), model()
    ema, restored = EMA(made, ["0.weight"], 0.9), EMA(again, ["0.weight"], 0.9)
    train(made, ema, 3)
    again.load_state_dict(made.state_dict())
    assert ema.tensors().keys() == {"ema.0.weight", "ema_updates"}
    for name, value in restored.tensors().items():
        value.copy_(ema.tensors()[name])
    train(made, ema, 4)
    train(again, restored, 4)
    assert restored.updates == ema.updates == 7
    assert torch.equal(restored.average["0.weight"], ema.average["0.weight"])


def test_without_decay_nothing_is_kept():
    made = model()
    ema = EMA(made, ["0.weight"], 0.0)
    train(made, ema, 2)
    own = made[0].weight.detach().clone()
    with ema.swapped(made):
        assert torch.equal(made[0].weight, own)
    assert (ema.average, ema.tensors()) == ({}, {})


@pytest.fixture
def mesh():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=store)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_shards_are_averaged_as_whole_tensors_are(mesh):
    made, sharded = model(), model()
    for layer in sharded:
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Shard(0)])))
    names = [name for name, _ in made.named_parameters()]
    averages = [EMA(one, names, 0.8) for one in (made, sharded)]
    for one, ema in zip((made, sharded), averages, strict=True):
        train(one, ema, 3)
    with averages[1].swapped(sharded):
        for name, parameter in sharded.named_parameters():
            assert isinstance(parameter, DTensor)
            assert torch.equal(parameter.full_tensor(), averages[0].average[name])
