"""Distillation beside a plain loop over the blocks; the teacher stays as it is and is no part of the student."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import mmrnn
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.data import Collator
from mmrnn.io import jsonl
from mmrnn.model.build import build
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import Distillation
from mmrnn.training.build import build_step, build_step_on_meta, make_objective
from mmrnn.training.distributed.materialize import materialize
from mmrnn.training.run import train
from mmrnn.training.saving.checkpoint_folder import step_folder
from mmrnn.training.step import TrainStep, unit_counts
from mmrnn.types import IGNORE, Batch, Sequence
from tests.training.distributed.steps import sample

PARTS = ("model=visualrwkv7_tiny", "encoder=patch_tiny", "connector=linear")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(1)
    model = build(compose(*PARTS, "backbone=transformer_tiny"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    mmrnn.save(model, folder)
    return folder


@pytest.fixture
def student(teacher):
    torch.manual_seed(2)
    model = build(compose(*PARTS, f"weights.inherit={teacher}"))
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def batch():
    model = build(compose(*PARTS))
    collate = Collator(DemoTokenizer(), RWKVChat(), dict(model.modalities))
    return collate([sample("what is it?", "a long answer of many words", 1), sample("b?", "no", 0)])


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def test_loss_and_gradients_are_those_of_a_plain_loop(teacher, student, batch):
    student.requires_grad_(False)
    student.backbone.blocks.requires_grad_(True)
    taught = mmrnn.load(teacher).model
    sequence = taught.embed(batch)
    real = ~batch.sequence.padding
    with torch.no_grad():
        x, layers = sequence.embeds, []
        positions = torch.arange(x.shape[1]).expand(len(x), -1)
        for block, cache in zip(taught.backbone.blocks, taught.backbone.state(len(x)).layers, strict=True):
            y, _ = block(x, cache, positions, None)
            layers.append((x, y))
            x = y
        goal = (taught.head(taught.backbone.norm(x)) / 3).softmax(-1)
    errors, shared = [], ()
    starts = student.backbone.state(len(real)).layers
    for block, (given, goal_block), state in zip(student.backbone.blocks, layers, starts, strict=True):
        found, _, shared = block(given, state, None, shared)
        errors.append(F.mse_loss(found[real], goal_block[real]))
    logits = student(batch).hidden
    logits = (student.head(logits) / 3).log_softmax(-1)
    known = batch.sequence.targets != IGNORE
    divergence = 9 * F.kl_div(logits[known], goal[known], reduction="batchmean")
    expected = 2.0 * torch.stack(errors).mean() + 0.5 * divergence
    wanted = gradients(student, expected)

    objective = Distillation(student, teacher=str(teacher), blocks=2.0, logits=0.5, temperature=3.0, chunk_size=5)
    counts = unit_counts(objective, batch)
    assert counts == [int(real.sum()), int(known.sum())]
    step = TrainStep(student, objective)
    student.backbone.norm.requires_grad_(False)
    loss, _ = step(batch, (1.0, 1.0))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    found = gradients(student, loss)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6 * float(value.abs().max() + 1e-3))


def test_the_teacher_is_frozen_shares_features_and_is_no_part_of_what_is_saved(teacher, student, batch):
    state = torch.get_rng_state()
    objective = make_objective(
        plain(compose("objective=distill", f"objective.teacher={teacher}", "objective.blocks=0"))["objective"], student
    )
    assert torch.equal(torch.get_rng_state(), state)
    step = TrainStep(student, objective)
    theirs = {id(value) for value in objective.teacher.model.parameters()}
    assert not theirs & {id(value) for value in step.parameters()}
    assert student.objective is None
    before = {name: value.clone() for name, value in objective.teacher.model.state_dict().items()}
    loss, _ = step(batch, (1.0,))
    loss.backward()
    assert all(value.grad is None and not value.requires_grad for value in objective.teacher.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in objective.teacher.model.state_dict().items())
    # The encoder was inherited: features of images need be computed once for both.
    assert not objective.needs_images
    with torch.no_grad():
        features = {"image": student.modalities["image"].encode(batch.images["image"])}
        cached, _ = step(replace(batch, images={}, features=features), (1.0,))
    torch.testing.assert_close(cached, loss.detach())
    student.modalities["image"].encoder.requires_grad_(False)
    with torch.no_grad():
        next(student.modalities["image"].encoder.parameters()).add_(1)
    assert Distillation(student, teacher=str(teacher)).needs_images


@pytest.mark.parametrize("positions", ["targets", "all"])
def test_packed_rows_have_the_loss_of_rows_of_their_own(teacher, student, positions):
    ids = torch.randint(1, 200, (2, 8))
    labels = ids.clone()
    labels[0, :4] = IGNORE
    segments = torch.tensor([[0] * 8 + [1] * 8])
    objective = Distillation(student, teacher=str(teacher), positions=positions)
    student.requires_grad_(False)
    rows = Batch(Sequence(ids, labels=labels))
    packed = Batch(Sequence(ids.view(1, 16), labels=labels.view(1, 16), segments=segments))
    if positions == "all":  # the last target of the first row is the first token of the second one
        packed = replace(packed, sequence=replace(packed.sequence, padding=torch.zeros(1, 16, dtype=torch.bool)))
    one, several = (TrainStep(student, objective)(batch, (1.0, 1.0))[0] for batch in (packed, rows))
    if positions == "all":
        torch.testing.assert_close(one, several, rtol=1e-5, atol=0)
        return
    labels[1, 0] = IGNORE
    packed = Batch(replace(packed.sequence, labels=labels.view(1, 16)))
    torch.testing.assert_close(TrainStep(student, objective)(packed, (1.0, 1.0))[0], several, rtol=1e-5, atol=0)


def test_a_student_that_keeps_attention_has_nothing_to_learn_there(teacher, batch):
    sizes = ("backbone.width=32", "backbone.depth=2", "backbone.ffn=64", "backbone.mixers.rwkv7.head_size=16")
    more = ("backbone.mixers.attention.heads=2", f"weights.inherit={teacher}")
    pattern = "backbone.pattern=[rwkv7,attention]"
    student = build(compose(*PARTS, "backbone=linear_rwkv7_study", *sizes, *more, pattern))
    student.requires_grad_(False)
    student.backbone.blocks.requires_grad_(True)
    loss, _ = TrainStep(student, Distillation(student, teacher=str(teacher), logits=0.0))(batch, (1.0,))
    found = gradients(student, loss)
    assert loss > 1e-4
    assert max(value.abs().max() for name, value in found.items() if ".blocks.1." in name) < 1e-6
    assert found["backbone.blocks.0.mixer.time_mix.key.weight"].abs().max() > 1e-5


def test_pairs_that_do_not_fit_are_refused(teacher, student, tmp_path):
    for overrides, message in {
        ("backbone.vocab=1100",): "vocab 1024, and the student 1100",
        ("backbone.depth=3",): "depth 2, and the student 3",
        ("encoder=clip_tiny",): "lays out image inputs in another way",
    }.items():
        with pytest.raises(ValueError, match=message):
            Distillation(build(compose(*PARTS, *overrides)), teacher=str(teacher))
    other = {"_target_": "mmrnn.tokenizers.RWKVWorldTokenizer"}
    own, student.config = student.config, {**student.config, "tokenizer": other}
    with pytest.raises(ValueError, match="numbers tokens in another way"):
        Distillation(student, teacher=str(teacher))
    student.config = own
    with pytest.raises(ConfigError, match="a teacher is required"):
        make_objective(plain(compose("objective=distill"))["objective"], student)
    with pytest.raises(ValueError, match="both 0"):
        Distillation(student, teacher=str(teacher), blocks=0.0, logits=0.0)
    with pytest.raises(ValueError, match=r"is a preset and has none; set objective\.weights=FILE"):
        Distillation(student, teacher="transformer_small")
    with pytest.raises(ValueError, match="has its own"):
        Distillation(student, teacher=str(teacher), weights="file.pth")


def test_block_outputs_alone_train_blocks_alone(teacher, student, batch):
    objective = Distillation(student, teacher=str(teacher), logits=0.0)
    with pytest.raises(ValueError, match=r"would get no gradient; set the `train` of the stage to \[backbone.blocks"):
        TrainStep(student, objective)(batch, (1.0,))


def test_a_preset_with_weights_teaches_like_a_checkpoint(teacher, tmp_path, batch):
    base = ("model=llava_tiny",)
    torch.manual_seed(3)
    mmrnn.save(build(compose(*base)), tmp_path / "llava")
    student = build(compose(*base, "backbone=rwkv7_tiny", f"weights.inherit={tmp_path / 'llava'}"))
    file = str(tmp_path / "llava" / "model.safetensors")
    preset = Distillation(student, teacher="llava_tiny", weights=file, blocks=0.0)
    folder = Distillation(student, teacher=str(tmp_path / "llava"), blocks=0.0)
    for name, value in folder.teacher.model.state_dict().items():
        assert torch.equal(value, preset.teacher.model.state_dict()[name])


def test_a_student_built_without_memory_has_a_whole_teacher(teacher, batch):
    cfg = plain(compose(*PARTS, "recipe=linearise_2", f"teacher={teacher}", f"weights.inherit={teacher}"))
    losses = []
    for build_it in (build_step, lambda cfg: materialized(*build_step_on_meta(cfg))):
        torch.manual_seed(4)
        step = build_it(cfg)
        taught = step.objective.teacher.model
        assert not any(value.is_meta or value.requires_grad for value in taught.parameters())
        losses.append(step(batch, (1.0,))[0])
    assert losses[0] > 0
    assert torch.equal(*losses)


def materialized(step, start):
    materialize(step, start, "cpu")
    return step


def test_a_resumed_stage_is_an_uninterrupted_one(teacher, tmp_path):
    small = (
        *("recipe=linearise_1", f"teacher={teacher}", "data=demo", "data.scenes=8", "data.rounds=2"),
        *("stage.instruct.steps=4", "stage.instruct.batch_size=4", "schedule.warmup=0", "batching=packed"),
        *("evaluate.samples=0", "log_every=1", "keep_every=2", "workers=0", "objective.logits=0.0"),
    )
    train(plain(compose(*PARTS, *small)), tmp_path / "one")
    train(plain(compose(*PARTS, *small, f"resume={step_folder(tmp_path / 'one', 2)}")), tmp_path / "two")
    one, two = (mmrnn.load(tmp_path / name).model.state_dict() for name in ("one", "two"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    losses = [line["loss"] for line in jsonl.records(tmp_path / "one" / "log.jsonl")]
    assert losses[-1] < losses[0]
    inherited = mmrnn.load(teacher).model.state_dict()
    assert torch.equal(one["backbone.embedding.weight"], inherited["backbone.embedding.weight"])
    assert not torch.equal(
        one["backbone.blocks.0.time_mix.key.weight"], inherited["backbone.blocks.0.attention.key.weight"]
    )
