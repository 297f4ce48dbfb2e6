"""A stage says what is trained; everything else stays as it is, to the bit."""

import pytest
import torch

from mmrnn.backbones import RWKV6
from mmrnn.connectors import Linear
from mmrnn.encoders import PatchEmbed
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import AdamW, Cosine, MuonWithAdamW, Stage
from mmrnn.training.optim import Muon, apply_schedule, lr_multipliers, param_groups
from mmrnn.training.optim.muon import orthogonal


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


def groups_of(made, stage):
    stage.apply_freezing(made)
    return param_groups(made, lr_mult=stage.lr_mult, layer_lr_decay=stage.layer_lr_decay)


def test_every_group_follows_the_schedule_and_only_matrices_decay():
    made, stage = model(), Stage(train=("backbone",))
    optimizer = AdamW(groups_of(made, stage), 1e-3, weight_decay=0.1, weight_decay_final=0.01)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in made.backbone.parameters()
    }
    lr = apply_schedule(optimizer, Cosine(min_lr=1e-5), 9, steps=10, lr=1e-3)
    assert lr == pytest.approx(1e-5)
    assert [group["lr"] for group in optimizer.param_groups] == [lr, lr, lr]
    matrices = [group for group in optimizer.param_groups if group["decays"]]
    assert [group["hidden"] for group in optimizer.param_groups if not group["decays"]] == [False]
    assert [group["hidden"] for group in matrices] == [False, True]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(0.01)] * 2 + [0.0]
    assert all(p.squeeze().dim() >= 2 for group in matrices for p in group["params"])


def test_lower_layers_of_a_part_learn_more_slowly():
    """Qwen-VL: 0.95 from each layer of the tower to the one below it; what lies before the first is one more."""
    names = ["cls", "patch.weight", "blocks.0.norm.bias", "blocks.1.norm.bias", "blocks.1.mlp.weight", "norm.weight"]
    names = [f"modalities.image.encoder.tower.{name}" for name in names]
    names += ["modalities.image.connector.blocks.0.weight", "backbone.blocks.0.weight"]
    factors = lr_multipliers(names, {"connector": 0.1}, {"encoder": 0.5})
    assert list(factors.values()) == [0.125, 0.125, 0.25, 0.5, 0.5, 1.0, 0.1, 1.0]
    made = model()
    optimizer = AdamW(groups_of(made, Stage(train=("backbone",), layer_lr_decay={"backbone": 0.5})), 1.0)
    apply_schedule(optimizer, Cosine(min_lr=1.0), 0, steps=2, lr=1.0)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert {rates[id(parameter)] for parameter in made.backbone.blocks[1].parameters()} == {0.5}
    assert {rates[id(parameter)] for parameter in made.backbone.blocks[0].parameters()} == {0.25}
    assert rates[id(made.backbone.embedding.weight)] == 0.125
    with pytest.raises(ValueError, match="layer_lr_decay: 'connector' has no numbered layers"):
        lr_multipliers([name for name, _ in made.named_parameters()], {}, {"connector": 0.9})
    with pytest.raises(ValueError, match="'towr' fits no parameter"):
        Stage(layer_lr_decay={"towr": 0.9}).apply_freezing(made)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"'conector' fits no parameter; parts are backbone, connector, encoder"):
        Stage(train=("conector",)).apply_freezing(model())
    with pytest.raises(ValueError, match="leave nothing to train"):
        Stage(train=("connector",), freeze=("connector",)).apply_freezing(model())
    with pytest.raises(ValueError, match=r"batch_size \(5\) must be a multiple of grad_accum_steps \(2\)"):
        Stage(batch_size=5, grad_accum_steps=2)
    with pytest.raises(ValueError, match="steps"):
        Stage(steps=0)


def test_frozen_tensors_are_equal_to_the_bit_after_steps():
    made, stage = model(), Stage(train=("connector",), lr=0.1)
    optimizer = AdamW(groups_of(made, stage), stage.lr)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.modalities["image"].connect(torch.randn(2, 4, 12)).square().sum().backward()
    apply_schedule(optimizer, Cosine(), 0, steps=stage.steps, lr=stage.lr)
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
    made = model()
    optimizer = MuonWithAdamW(groups_of(made, Stage(lr_mult={"connector": 0.5})), 0.01, weight_decay=0.1)
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
    lr = apply_schedule(optimizer, Cosine(), 0, steps=1000, lr=0.01)
    assert [group["lr"] for group in muon.param_groups] == [lr, lr / 2]
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    step(made, optimizer, 0)
    weight = "backbone.blocks.0.time_mix.key.weight"
    moves = torch.linalg.svdvals(made.get_parameter(weight).detach() - before[weight] * (1 - lr * 0.1))
    assert moves.max() < 2 * moves.min(), "all directions of a step are about equally long"


@pytest.mark.parametrize("bf16", [False, True], ids=["processor without bf16", "with bf16"])
def test_matrices_of_one_shape_at_once_move_as_one_by_one(monkeypatch, bf16):
    """As torch's own, but for the roundings of bf16, which is not chosen where the processor would emulate it."""
    monkeypatch.setattr("mmrnn.training.optim.muon.multiplies_bf16", lambda _: bf16)
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


@pytest.mark.parametrize("kind", [AdamW, MuonWithAdamW])
def test_an_optimizer_resumes_from_its_state(kind):
    ends = []
    for stopped in (False, True):
        torch.manual_seed(0)
        made = model()
        optimizer = kind(groups_of(made, Stage()), 0.01)
        for number in range(4):
            if stopped and number == 2:
                state = optimizer.state_dict()
                optimizer = kind(groups_of(made, Stage()), 0.01)
                optimizer.load_state_dict(state)
            apply_schedule(optimizer, Cosine(), number, steps=4, lr=0.01)
            step(made, optimizer, number)
        ends.append(made.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(ends[0].values(), ends[1].values(), strict=True))
