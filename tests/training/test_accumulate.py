"""A step of several micro-batches has the loss and the gradients of one batch of all their samples."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from mmrnn.backbones import RWKV6
from mmrnn.connectors import Linear
from mmrnn.data import Collator
from mmrnn.encoders import PatchEmbed
from mmrnn.model.vlm import VLM, Modality
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import AdamW, Cosine, LanguageModel, PatchAlignment, Stage, WeightedSum
from mmrnn.training.loop.stepper import Stepper
from mmrnn.training.optim import param_groups
from mmrnn.training.reading.loader import StepBatches
from mmrnn.training.reading.sample_reader import Collated, SkippedSample
from mmrnn.training.step import TrainStep, forward_for
from mmrnn.types import Objective, Sample, Turn


class Paint:
    def __init__(self, key):
        self.key = key

    def open(self):
        return Image.linear_gradient("L").resize((16, 16)).convert("RGB")


def sample(question, answer, images=0):
    turns = (Turn("user", "<image>" * images + question), Turn("assistant", answer))
    return Sample(turns, tuple(Paint(str(number)) for number in range(images)))


SAMPLES = [
    sample("a?", "yes"),
    sample("what is it?", "a long answer of many words, by far the longest", 1),
    sample("b?", "no", 1),
    sample("which one?", "this", 2),
    sample("c?", "no"),
    sample("d?", "I do not know it at all", 1),
]
"""Lengths, targets and images are spread unevenly over halves and thirds."""


def model():
    torch.manual_seed(0)
    made = VLM(
        RWKV6(vocab=1024, width=16, depth=2, head_size=8, mix_rank=4, decay_rank=4),
        {"image": Modality(PatchEmbed(patch=8, size=16, width=8, positions="none"), Linear(8, 16))},
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


class OneStep:
    """Loader of one step."""

    samples, epoch_size = 0, len(SAMPLES)

    def __init__(self, micro_batches):
        self.micro_batches = micro_batches

    def __next__(self):
        return StepBatches(self.micro_batches, [], [])


def step(made, objective, parts, pack, **chunks):
    """Loss and gradients of one step, whose samples are split into so many micro-batches."""
    collate = Collator(DemoTokenizer(), RWKVChat(), dict(made.modalities), max_length=160, pack=pack)
    size = len(SAMPLES) // parts
    micro = [collate(SAMPLES[start : start + size]) for start in range(0, len(SAMPLES), size)]
    if pack:
        assert len(micro[0].sequence.ids) == 1
    stage = Stage(train=("connector", "backbone"), steps=1, max_grad_norm=0.0)
    stage.apply_freezing(made)
    optimizer, grads = AdamW(param_groups(made, lr_mult={}, layer_lr_decay={}), stage.lr), {}
    optimizer.step = lambda: grads.update(
        {name: value.grad.clone() for name, value in made.named_parameters() if value.grad is not None}
    )
    stepper = Stepper(
        step=TrainStep(made, objective), stage=stage, optimizer=optimizer, schedule=Cosine(), precision="fp32", **chunks
    )
    [result] = stepper.steps(OneStep(micro))
    return result.loss, grads


def aligned(made):
    """Two objectives, of which one takes its mean over targets and the other over images."""
    torch.manual_seed(1)
    teacher = PatchEmbed(patch=8, size=16, width=8, positions="none")
    return WeightedSum(
        made,
        parts=[LanguageModel(reduction="token"), PatchAlignment(made, teacher=teacher, every=1)],
        weights=(1.0, 0.5),
    )


OBJECTIVES = {
    "sample": lambda made: LanguageModel(reduction="sample"),
    "token": lambda made: LanguageModel(reduction="token"),
    "pulled": lambda made: LanguageModel(reduction="sample", l2wrap=0.1, z_loss=0.01, chunk_size=16),
    "sum": aligned,
}


@pytest.mark.parametrize("pack", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_micro_batches_weigh_what_the_objective_counts(kind, parts, pack):
    made = model()
    objective = OBJECTIVES[kind](made)
    loss, grads = step(made, objective, 1, pack)
    split_loss, split = step(made, objective, parts, pack)
    assert split_loss == pytest.approx(loss, rel=1e-5)
    assert split.keys() == grads.keys()
    for name, value in grads.items():
        torch.testing.assert_close(split[name], value, atol=1e-6, rtol=1e-4, msg=name)


def test_packed_and_padded_steps_are_one():
    """The pull on the largest logits included: padding has none."""
    made = model()
    objective = LanguageModel(l2wrap=0.1)
    (loss, grads), *others = (step(made, objective, parts, pack) for parts, pack in ((1, False), (2, True), (3, False)))
    unpulled = step(made, LanguageModel(), 1, False)[1]
    name = "backbone.output.weight"
    assert (grads[name] - unpulled[name]).norm() > 1e-2 * grads[name].norm()
    for other_loss, other in others:
        assert other_loss == pytest.approx(loss, rel=1e-5)
        for name, value in grads.items():
            torch.testing.assert_close(other[name], value, atol=1e-6, rtol=1e-4, msg=name)


def test_without_images_the_alignment_has_gradients_of_zero():
    """So that processes of one run reduce the gradients of the same parameters."""
    made = model()
    objective = aligned(made)
    batch = Collator(DemoTokenizer(), RWKVChat(), dict(made.modalities))(SAMPLES[:1])
    _, alignment = objective.losses(made, forward_for(made, objective, batch))
    assert alignment == 0
    alignment.backward()
    grads = {name: value.grad for name, value in objective.named_parameters() if value.requires_grad}
    assert grads
    assert all(value is not None and not value.any() for value in grads.values())


@pytest.mark.parametrize("pack", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("parts", [1, 2])
def test_micro_batches_can_be_read_in_pieces(parts, pack):
    """The loss is the same with any horizon, the gradients with one that reaches back to the start."""
    made, objective = model(), LanguageModel(l2wrap=0.1, z_loss=0.01)
    loss, grads = step(made, objective, 1, pack)
    for horizon in (1, 2, 99):
        split_loss, split = step(made, objective, parts, pack, train_chunk=16, horizon=horizon)
        assert split_loss == pytest.approx(loss, rel=1e-6)
    assert split.keys() == grads.keys()
    for name, value in grads.items():
        torch.testing.assert_close(split[name], value, atol=1e-6, rtol=1e-4, msg=name)


def test_an_objective_of_ones_own_counts_rows():
    class Plain(Objective):
        def __call__(self, model, output):
            return model.head(output.hidden).square().mean((1, 2)).mean()

    made = model()
    assert step(made, Plain(), 2, False)[0] > 0


def test_a_step_waits_for_the_device_once(monkeypatch):
    """Every value that is read on the host is a synchronisation on a GPU."""
    reads = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        read = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, read=read, name=name: reads.append(name) or read(self))
    forward, counted = TrainStep.forward, []

    def count_outside(self, batch, share, state=None):
        before = len(reads)
        loss = forward(self, batch, share, state)
        del reads[before:]  # the model's own
        counted.append(share)
        return loss

    monkeypatch.setattr(TrainStep, "forward", count_outside)
    step(model(), LanguageModel(), 3, False)
    assert len(counted) == 3
    assert reads.count("tolist") == 1
    assert len(reads) == 1


def test_batches_can_be_copied_from_pinned_memory(monkeypatch):
    """Without a GPU no memory can be pinned: what the loader would pin is recorded."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self.clone())
    made = model()
    batch = Collator(DemoTokenizer(), RWKVChat(), dict(made.modalities))(SAMPLES)
    batch = replace(batch, features={"state": torch.ones(1, 2, 3)})
    before = Collated(batch, ["a"], [7], [SkippedSample(8, "b", "too long", "longer than 9")])
    collated = pin_memory(before)
    assert collated._replace(batch=None) == before._replace(batch=None)
    sequence = batch.sequence
    tensors = [sequence.ids, sequence.labels, sequence.padding, *batch.images.values(), *batch.features.values()]
    assert len(pinned) == len(tensors)
    assert all(any(one is tensor for one in pinned) for tensor in tensors)
    assert torch.equal(collated.batch.sequence.ids, sequence.ids)
    assert collated.batch.sequence.image_spans == sequence.image_spans
    moved = collated.batch.to("cpu", non_blocking=True)
    assert torch.equal(moved.images["image"], batch.images["image"])


@pytest.mark.parametrize("parts", [2, 3])
def test_a_micro_batch_of_text_has_no_graph_to_the_connector(parts):
    made = model()
    stage = Stage(train=("connector",), steps=1, max_grad_norm=0.0)
    stage.apply_freezing(made)
    collate = Collator(DemoTokenizer(), RWKVChat(), dict(made.modalities))
    texts, image = [sample("a?", "yes")], [sample("b?", "no", 1)]
    optimizer = AdamW(param_groups(made, lr_mult={}, layer_lr_decay={}), stage.lr)
    stepper = Stepper(step=TrainStep(made, LanguageModel()), stage=stage, optimizer=optimizer, schedule=Cosine())
    before = made.modalities["image"].connector.proj.weight.clone()
    [result] = stepper.steps(OneStep([collate(texts)] * (parts - 1) + [collate(image)]))
    assert result.loss > 0
    assert not torch.equal(made.modalities["image"].connector.proj.weight, before)
