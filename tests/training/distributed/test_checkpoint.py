"""Tensors of a run on disk: written by any number of ranks, read by any other, and never executed."""

import math
import pickle
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from mmrnn.training.distributed.checkpoint import TrainingState
from mmrnn.training.distributed.checkpoint_writer import CheckpointWriter
from mmrnn.training.distributed.random_state import random_state, restore_random, set_random_state
from mmrnn.training.distributed.world import World
from mmrnn.training.optim import AdamW, MuonWithAdamW
from tests.training.distributed.ranks import run_ranks

STEPS = 3


class Net(nn.Module):
    """A model with frozen, trained and never used parameters, and a buffer."""

    def __init__(self):
        super().__init__()
        self.frozen, self.hidden, self.head = nn.Linear(6, 6), nn.Linear(6, 10), nn.Linear(10, 3, bias=False)
        self.unused = nn.Parameter(torch.ones(4, 4))
        self.register_buffer("seen", torch.zeros(()))
        self.frozen.requires_grad_(False)

    def forward(self, x):
        self.seen += 1
        return self.head(self.hidden(self.frozen(x)).tanh())


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def make(kind, world, optimizer):
    """Model, module that is called, and optimizer."""
    torch.manual_seed(1)
    model = Net()
    module = nn.ModuleDict({"model": model})
    if kind == "fsdp":
        mesh = dist.init_device_mesh("cpu", (world.size,))
        fully_shard(model.hidden, mesh=mesh)
        fully_shard(model, mesh=mesh)
    forward = DistributedDataParallel(model, find_unused_parameters=True) if kind == "ddp" else model
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in parameters if (one.dim() == 2) == hidden], "hidden": hidden, "lr_mult": 1.0}
        for hidden in (True, False)
    ]
    return model, module, forward, (MuonWithAdamW if optimizer == "muon" else AdamW)(groups, 1e-2)


def step(world, forward, optimizer, number):
    """One step on the same eight samples, whatever the number of ranks."""
    generator = torch.Generator().manual_seed(number)
    x, y = torch.randn(8, 6, generator=generator), torch.randn(8, 3, generator=generator)
    mine = slice(world.rank, None, world.size)
    loss = (forward(x[mine]) - y[mine]).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return world.sum([loss.item() / world.size])[0]


def save(world, folder, kind, optimizer="adamw"):
    """Train, save, and train on."""
    model, module, forward, optimizer = make(kind, world, optimizer)
    for number in range(STEPS):
        step(world, forward, optimizer, number)
    state = TrainingState(model, optimizer, trained(model), module)
    writer = CheckpointWriter(world)
    if world.main:
        folder.mkdir()
    world.barrier()
    writer.start(folder, state.tensors(), lambda: (folder / "committed").touch())
    numbers = state.numbers()
    losses = [step(world, forward, optimizer, number) for number in range(STEPS, 2 * STEPS)]
    assert writer.wait()
    assert not writer.wait()
    return losses, numbers


def load(world, folder, kind, numbers, optimizer="adamw"):
    """Load, and train on."""
    model, module, forward, optimizer = make(kind, world, optimizer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained(model):
                parameter.fill_(7)
    TrainingState(model, optimizer, trained(model), module).load(folder, numbers, CheckpointWriter(world).group)
    unused = model.unused
    assert unused not in optimizer.parts[0].state
    return [step(world, forward, optimizer, number) for number in range(STEPS, 2 * STEPS)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_process_goes_on_bit_by_bit(tmp_path, optimizer):
    losses, numbers = save(World(), tmp_path / "one", "plain", optimizer)
    assert load(World(), tmp_path / "one", "plain", numbers, optimizer) == losses
    assert (tmp_path / "one" / "committed").exists()


def _everything(world, folder):
    """Losses by what has saved and what has loaded."""
    found = {}
    for kind in ("ddp", "fsdp"):
        found[kind, kind], numbers = save(world, folder / kind, kind)
        for other in ("ddp", "fsdp"):
            found[kind, other + " loads"] = load(world, folder / kind, other, numbers)
    found["one loads"] = load(world, folder / "one", "fsdp", {})
    return found


def test_ranks_read_what_another_number_or_strategy_has_written(tmp_path):
    alone, _ = save(World(), tmp_path / "one", "plain")
    first, second = run_ranks(2, _everything, tmp_path, tmp_path)
    assert first == second
    for kind, other in (("ddp", "fsdp"), ("fsdp", "ddp")):
        assert first[kind, f"{kind} loads"] == first[kind, kind]
        assert first[kind, f"{other} loads"] == pytest.approx(first[kind, kind], rel=1e-6)
        assert load(World(), tmp_path / kind, "plain", {}) == pytest.approx(first[kind, kind], rel=1e-6)
        assert first[kind, kind] == pytest.approx(alone, rel=1e-6)
    assert first["one loads"] == pytest.approx(alone, rel=1e-6)


def test_only_what_the_run_changes_is_saved(tmp_path):
    model, _, forward, optimizer = make("plain", World(), "adamw")
    step(World(), forward, optimizer, 0)
    state = TrainingState(model, optimizer, trained(model), more={"ema.head.weight": torch.ones(3, 10)})
    names = set(state.tensors())
    assert {name for name in names if name.startswith("model.")} == {
        f"model.{name}" for name in (*trained(model), "seen")
    }
    assert "more.ema.head.weight" in names
    assert "optimizer.head.weight.exp_avg" in names
    assert not any("unused" in name for name in names if name.startswith("optimizer."))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["weights", "moments"])
def test_what_is_not_finite_is_found(place, value):
    model, _, forward, optimizer = make("plain", World(), "adamw")
    step(World(), forward, optimizer, 0)
    state = TrainingState(model, optimizer, trained(model))
    model.frozen.weight.data[0, 0] = value
    assert state.is_finite()
    with torch.no_grad():
        (model.head.weight if place == "weights" else optimizer.state[model.head.weight]["exp_avg_sq"])[0, 1] = value
    assert not state.is_finite()


class Evil:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    "content",
    [b"half", b"", pickle.dumps(Evil()), pickle.dumps({"not": "an index"})],
    ids=["text", "empty", "code", "dict"],
)
def test_an_index_is_read_without_executing_it(tmp_path, capsys, content):
    _, numbers = save(World(), tmp_path / "one", "plain")
    (tmp_path / "one" / ".metadata").write_bytes(content)
    with pytest.raises(ValueError, match=r"the checkpoint .*one is damaged, or of another model: .*\.metadata is"):
        load(World(), tmp_path / "one", "plain", numbers)
    assert "executed" not in capsys.readouterr().out


def test_a_cut_file_is_named(tmp_path):
    _, numbers = save(World(), tmp_path / "one", "plain")
    (file,) = (tmp_path / "one").glob("*.distcp")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"the checkpoint .*one is damaged"):
        load(World(), tmp_path / "one", "plain", numbers)


def test_another_model_is_refused(tmp_path):
    _, numbers = save(World(), tmp_path / "one", "plain")
    model = nn.Linear(3, 3)
    state = TrainingState(model, AdamW([{"params": [*model.parameters()]}], 1e-3), {"weight", "bias"})
    with pytest.raises(ValueError, match=r"one is damaged, or of another model: .*model\.bias"):
        state.load(tmp_path / "one", numbers)


def test_random_state_comes_back():
    import random

    state = random_state()
    drawn = torch.rand(3), random.random()
    set_random_state(state)
    assert torch.equal(torch.rand(3), drawn[0])
    assert random.random() == drawn[1]


def test_each_rank_has_its_own_random_state():
    torch.manual_seed(1)
    states = [random_state()]
    torch.manual_seed(2)
    states.append(random_state())
    drawn = torch.rand(3)
    restore_random(states, 1, 2, 7)
    assert torch.equal(torch.rand(3), drawn)
    found = []
    for rank, size, seed in ((0, 3, 7), (1, 3, 7), (0, 1, 7), (0, 3, 8), (0, 3, 7)):
        restore_random(states, rank, size, seed)
        found.append(tuple(torch.rand(3).tolist()))
    assert found[0] == found[4]
    assert len(set(found)) == 4


def test_random_state_of_all_gpus(monkeypatch):
    states = {0: torch.arange(16, dtype=torch.uint8), 1: torch.ones(16, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "get_rng_state", states.__getitem__)
    restored = {}
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, index: restored.update({index: state}))
    set_random_state(random_state())
    assert restored.keys() == states.keys()
    assert all(torch.equal(restored[index], states[index]) for index in states)


def test_a_failing_commit_leaves_no_folder(tmp_path):
    writer = CheckpointWriter(World())
    (tmp_path / "one").mkdir()
    writer.start(tmp_path / "one", {"a": torch.ones(2)}, partial(int, "x"))
    with pytest.raises(ValueError, match="invalid literal"):
        writer.wait()
    assert not (tmp_path / "one").exists()
