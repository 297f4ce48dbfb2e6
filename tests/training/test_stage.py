"""A stage says what learns; everything else stays as it is, to the bit."""

import pytest
import torch

from mmrnn.backbones import RWKV6
from mmrnn.connectors import Linear
from mmrnn.encoders import PatchEmbed
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import Stage
from mmrnn.training.optim.muon import Muon, orthogonal


def model(dropout=0.1):
    encoder = PatchEmbed(patch=4, size=8, width=12)
    backbone = RWKV6(vocab=40, width=32, depth=2, head_size=16, mix_rank=4, decay_rank=4, dropout=dropout)
    return VLM(backbone, {"image": Modality(encoder, Linear(12, 32))})


def learning(made):
    return {name for name, parameter in made.named_parameters() if parameter.requires_grad}


def test_parts_and_globs():
    made = model()
    names = Stage(train=("connector",)).apply_freezing(made)
    assert learning(made) == set(names)
    assert all(name.startswith("modalities.image.connector.") for name in names)
    Stage(train=("connector", "backbone"), freeze=("backbone.embedding.*",)).apply_freezing(made)
    assert not any(name.startswith(("backbone.embedding", "modalities.image.encoder")) for name in learning(made))
    Stage(train=("backbone.blocks.1.*",)).apply_freezing(made)
    assert {name.split(".")[2] for name in learning(made)} == {"1"}


def test_frozen_parts_rest_and_the_others_train():
    made = model()
    Stage(train=("backbone",)).apply_freezing(made)
    assert not made.modalities["image"].encoder.training
    assert made.backbone.blocks[0].dropout.training
    Stage(train=("connector",)).apply_freezing(made)
    assert not made.backbone.blocks[0].dropout.training


def test_every_group_follows_the_schedule_and_only_matrices_decay():
    made, stage = (
        model(),
        Stage(train=("backbone",), weight_decay=0.1, weight_decay_final=0.01, lr=1e-3, min_lr=1e-5, steps=10),
    )
    stage.apply_freezing(made)
    optimizer = stage.optimizer(made)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in made.backbone.parameters()
    }
    rate = stage.set_rates(optimizer, 9)
    assert rate == pytest.approx(1e-5)
    assert [group["lr"] for group in optimizer.param_groups] == [rate, rate]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(0.01), 0.0]
    assert all(p.squeeze().dim() >= 2 for p in optimizer.param_groups[0]["params"])


def test_lower_layers_of_a_part_learn_more_slowly():
    """Qwen-VL: 0.95 from each layer of the tower to the one below it; what lies before the first is one more."""
    names = ["cls", "patch.weight", "blocks.0.norm.bias", "blocks.1.norm.bias", "blocks.1.mlp.weight", "norm.weight"]
    names = [f"modalities.image.encoder.tower.{name}" for name in names]
    stage = Stage(train=("encoder", "connector"), layer_lr_decay={"encoder": 0.5}, lr_mult={"connector": 0.1})
    scales = stage.scales([*names, "modalities.image.connector.blocks.0.weight", "backbone.blocks.0.weight"])
    assert list(scales.values()) == [0.125, 0.125, 0.25, 0.5, 0.5, 1.0, 0.1, 1.0]
    made = model()
    stage = Stage(train=("backbone",), layer_lr_decay={"backbone": 0.5}, lr=1.0, min_lr=1.0, steps=2)
    stage.apply_freezing(made)
    optimizer = stage.optimizer(made)
    stage.set_rates(optimizer, 0)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert {rates[id(parameter)] for parameter in made.backbone.blocks[1].parameters()} == {0.5}
    assert {rates[id(parameter)] for parameter in made.backbone.blocks[0].parameters()} == {0.25}
    assert rates[id(made.backbone.embedding.weight)] == 0.125
    with pytest.raises(ValueError, match="layer_lr_decay: 'connector' has no numbered layers"):
        Stage(layer_lr_decay={"connector": 0.9}).scales([name for name, _ in made.named_parameters()])
    with pytest.raises(ValueError, match="'towr' fits no parameter"):
        Stage(layer_lr_decay={"towr": 0.9}).apply_freezing(made)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"'conector' fits no parameter; parts are backbone, connector, encoder"):
        Stage(train=("conector",)).apply_freezing(model())
    with pytest.raises(ValueError, match="leave nothing to learn"):
        Stage(train=("connector",), freeze=("connector",)).apply_freezing(model())
    with pytest.raises(ValueError, match=r"batch_size \(5\) must be a multiple of grad_accum_steps \(2\)"):
        Stage(batch_size=5, grad_accum_steps=2)
    with pytest.raises(ValueError, match="steps"):
        Stage(steps=0)


def test_frozen_tensors_are_equal_to_the_bit_after_steps():
    made, stage = model(), Stage(train=("connector",), lr=0.1)
    stage.apply_freezing(made)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    optimizer = stage.optimizer(made)
    made.modalities["image"].connect(torch.randn(2, 4, 12)).square().sum().backward()
    stage.set_rates(optimizer, 0)
    optimizer.step()
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == learning(made)


def step(made, optimizer, seed):
    torch.manual_seed(seed)
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def test_muon_moves_the_matrices_between_layers_and_adamw_the_rest():
    made, stage = model(), Stage(muon=True, lr=0.01, weight_decay=0.1, lr_mult={"connector": 0.5})
    stage.apply_freezing(made)
    optimizer = stage.optimizer(made)
    adamw, muon = optimizer.parts
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    moved = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert any(name.startswith("modalities.image.connector.") for name in moved)
    assert {name.split(".")[-2] for name in moved if name.startswith("backbone.blocks.0.")} == {
        *("receptance", "key", "value", "gate", "output")
    }
    assert not moved & {"backbone.embedding.weight", "backbone.output.weight"}
    rest = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert not moved & rest
    assert moved | rest == learning(made)
    rate = stage.set_rates(optimizer, 0)
    assert [group["lr"] for group in muon.param_groups] == [rate, rate / 2]
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    step(made, optimizer, 0)
    weight = "backbone.blocks.0.time_mix.key.weight"
    moves = torch.linalg.svdvals(made.get_parameter(weight).detach() - before[weight] * (1 - rate * 0.1))
    assert moves.max() < 2 * moves.min(), "all directions of a step are about equally long"


@pytest.mark.parametrize("bf16", [False, True], ids=["processor without bf16", "with bf16"])
def test_matrices_of_one_shape_at_once_move_as_one_by_one(monkeypatch, bf16):
    """As torch's own, but for the roundings of bf16, which is not chosen where the processor would emulate it."""
    monkeypatch.setattr("mmrnn.training.optim.muon.multiplies_bf16", lambda: bf16)
    one = orthogonal(torch.eye(4)[None] * 0.1, (3.4445, -4.775, 2.0315), 5, 1e-7)
    assert one.dtype == (torch.bfloat16 if bf16 else torch.float32)
    torch.manual_seed(0)
    shapes = [(16, 16), (48, 16), (16, 16), (16, 48), (16, 16)]
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    knobs = {"lr": 0.02, "weight_decay": 0.1}
    optimizers = Muon(ours, **knobs), torch.optim.Muon(theirs, **knobs, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        ours[1].grad = theirs[1].grad = None
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)
    assert torch.equal(ours[1], torch.ones(48, 16)), "what has no gradient stays"


@pytest.mark.parametrize("muon", [False, True])
def test_an_optimizer_goes_on_from_its_state(muon):
    ends = []
    for stopped in (False, True):
        torch.manual_seed(0)
        made, stage = model(), Stage(muon=muon, lr=0.01, steps=4)
        stage.apply_freezing(made)
        optimizer = stage.optimizer(made)
        for number in range(4):
            if stopped and number == 2:
                state = optimizer.state_dict()
                optimizer = stage.optimizer(made)
                optimizer.load_state_dict(state)
            stage.set_rates(optimizer, number)
            step(made, optimizer, number)
        ends.append(made.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(ends[0].values(), ends[1].values(), strict=True))
