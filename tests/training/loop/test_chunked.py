"""A micro-batch that is read in pieces: its loss, its gradients, and where it is cut."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from mmrnn.backbones import RWKV5, RWKV6, RWKV7, GatedCrossAttention, MLPExpert, TinyAttention
from mmrnn.backbones.scan import bidirectional, multidirectional
from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.connectors import CrossAttentionTokens, Linear, Perceiver
from mmrnn.encoders import PatchEmbed
from mmrnn.io import jsonl
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import LanguageModel
from mmrnn.training.loop.chunked import cuts, split
from mmrnn.training.objectives.patch_alignment import PatchAlignment
from mmrnn.training.run import train
from mmrnn.training.step import forward_for
from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Layout, Sequence

BACKBONES = {"rwkv5": RWKV5, "rwkv6": RWKV6, "rwkv7": RWKV7}
HOOKS = {"none": None, "expert": MLPExpert, "attention": TinyAttention}


def vlm(kind="rwkv6", hook=None, scan=bidirectional, **knobs):
    torch.manual_seed(0)
    backbone = BACKBONES[kind](vocab=50, width=32, depth=3, head_size=16, **knobs)
    modality = Modality(PatchEmbed(patch=4, size=8, width=8, positions="none"), Linear(8, 32))
    model = VLM(backbone, {"image": modality}, scan, hook=HOOKS[hook](backbone) if hook and HOOKS[hook] else None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def micro_batch(model, starts=((5, 20), (11, 15)), length=30, packed=False, replies=((9, 14), (24, 30))):
    """Two rows with two images each; `packed`: the rows end in a sample of their own."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, (len(starts), length), generator=generator)
    labels = torch.full_like(ids, IGNORE)
    for start, stop in replies:
        labels[:, start:stop] = ids[:, start:stop]
    layout = model.modalities["image"].layout(8, 8)
    spans = [ImageSpan(row, start, layout) for row, places in enumerate(starts) for start in places]
    for span in spans:
        ids[span.sample, span.start : span.stop] = SLOT
        labels[span.sample, span.start : span.stop] = IGNORE
    segments = None
    if packed:
        segments = torch.zeros_like(ids)
        segments[0, 10:], segments[0, 16:], segments[1, 19:] = 1, 2, 1
        labels[:, 1:] = labels[:, 1:].where(segments[:, 1:] == segments[:, :-1], IGNORE)
    images = torch.randn(len(spans), 3, 8, 8, generator=generator)
    return Batch(Sequence(ids, tuple(spans), labels=labels, segments=segments), {"image": images})


def loss_and_grads(model, objective, pieces, horizon):
    """Loss and gradients of pieces that pass on their state; the graph reaches back over `horizon` pieces."""
    model.zero_grad()
    state, pending, total = None, 0.0, 0.0
    for number, piece in enumerate(pieces, 1):
        output = model(piece, state)
        pending, state = pending + objective(model, output), output.state
        if number % horizon == 0 or number == len(pieces):
            pending.backward()
            total, pending, state = total + pending.item(), 0.0, state.detach()
    return total, {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def compare(model, batch, objective, size, **how):
    whole, grads = loss_and_grads(model, objective, [batch], 1)
    pieces = split(batch, objective, size, **how)
    loss, same = loss_and_grads(model, objective, pieces, len(pieces))
    assert len(pieces) > 2
    assert loss == pytest.approx(whole, rel=1e-6)
    assert same.keys() == grads.keys()
    for name, grad in grads.items():
        assert (same[name] - grad).abs().max() <= 1e-5 * grad.abs().max() + 1e-7, name
    loss, cut = loss_and_grads(model, objective, pieces, 1)
    assert loss == pytest.approx(whole, rel=1e-6)
    assert any((cut[name] - grad).abs().max() > 1e-2 * grad.abs().max() for name, grad in grads.items())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("reduction", ["sample", "token"])
@pytest.mark.parametrize("kind", BACKBONES)
def test_loss_and_gradients_are_those_of_the_whole(kind, reduction, packed):
    model = vlm(kind, scan=multidirectional)
    compare(model, micro_batch(model, packed=packed), LanguageModel(reduction=reduction, l2wrap=0.1), 7)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("hook", ["expert", "attention"])
def test_hooks(hook, packed):
    """The second image of the first row adjoins the first one, which an expert sees."""
    model = vlm(hook=hook)
    batch = micro_batch(model, ((5, 9), (14, 22)), packed=packed)
    compare(model, batch, LanguageModel(), 6, keep_adjoining=model.hook.looks_ahead)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("images", ["latest", "all"])
def test_images_beside_the_text(images, packed):
    """They are carried over in the state, but not into another sample of the row."""
    torch.manual_seed(0)
    backbone = RWKV6(vocab=50, width=32, depth=2, head_size=16)
    tokens = CrossAttentionTokens(8, part=partial(Perceiver, latents=3, depth=1, heads=2, head_size=8))
    modality = Modality(PatchEmbed(patch=4, size=8, width=8, positions="none"), tokens)
    hook = GatedCrossAttention(backbone, 8, every=1, heads=2, head_size=8, images=images)
    model = VLM(backbone, {"image": modality}, hook=hook)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    compare(model, micro_batch(model, packed=packed), LanguageModel(), 7)


def test_cached_features_and_images_of_several_sizes():
    model = vlm()
    batch = micro_batch(model)
    features = model.modalities["image"].encode(batch.images["image"]).detach()
    cached = Batch(batch.sequence, {}, {"image": features})
    for given in (cached, replace(batch, images={"image": tuple(batch.images["image"])})):
        pieces = split(given, LanguageModel(), 7)
        numbers = [len(piece.images.get("image", piece.features.get("image", ()))) for piece in pieces]
        assert sum(numbers) == 4
        assert 0 in numbers
        whole, _ = loss_and_grads(model, LanguageModel(), [given], 1)
        assert loss_and_grads(model, LanguageModel(), pieces, 2)[0] == pytest.approx(whole, rel=1e-6)


def test_a_horizon_is_a_number_of_pieces():
    """The more pieces the graph reaches back over, the nearer the gradient is to that of the whole."""
    model = vlm()
    batch, objective = micro_batch(model), LanguageModel()
    _, exact = loss_and_grads(model, objective, [batch], 1)
    pieces = split(batch, objective, 6)
    errors = []
    for horizon in range(1, len(pieces) + 1):
        _, grads = loss_and_grads(model, objective, pieces, horizon)
        errors.append(sum((grads[name] - grad).square().sum() for name, grad in exact.items()).sqrt().item())
    norm = sum(grad.square().sum() for grad in exact.values()).sqrt().item()
    assert errors[-1] < 1e-5 * norm
    assert errors[0] > errors[-2] > 1e-2 * norm


def span(row, start, rows, cols=1):
    return ImageSpan(row, start, Layout(rows, cols))


def edges(length, size, *spans, rows=2, **how):
    ids = torch.zeros(rows, length, dtype=torch.long)
    for one in spans:
        ids[one.sample, one.start : one.stop] = SLOT
    return cuts(Sequence(ids, spans), size, **how)


def test_cuts_lie_between_images():
    assert edges(10, 4) == [0, 4, 8, 10]
    assert edges(10, 10) == edges(10, 99) == [0, 10]
    assert edges(10, 4, span(0, 3, 3)) == [0, 3, 7, 10]  # before the image
    assert edges(10, 4, span(0, 0, 6)) == [0, 6, 10]  # behind an image that is longer than a piece
    assert edges(10, 4, span(0, 2, 3), span(1, 4, 4)) == [0, 2, 8, 10]  # images of two rows overlap
    assert edges(9, 4, span(0, 1, 3), span(0, 4, 3)) == [0, 4, 8, 9]
    assert edges(9, 4, span(0, 1, 3), span(0, 4, 3), keep_adjoining=True) == [0, 1, 7, 9]
    assert edges(5, 1) == [0, 1, 2, 3, 4, 5]


def test_cuts_of_packed_rows_lie_between_samples():
    segments = torch.repeat_interleave(torch.arange(4), torch.tensor([3, 2, 6, 1]))
    row = Sequence(torch.zeros(1, 12, dtype=torch.long), segments=segments[None])
    assert cuts(row, 5) == [0, 5, 10, 12]
    assert cuts(row, 4) == [0, 3, 5, 9, 12]
    assert cuts(row, 6) == [0, 5, 11, 12]


def test_what_cannot_be_read_in_pieces():
    model = vlm()
    batch = micro_batch(model)
    aligned = PatchAlignment(model, teacher=PatchEmbed(patch=4, size=8, width=8, positions="none"), every=1)
    with pytest.raises(
        ValueError, match="PatchAlignment is no sum over targets and needs a whole batch; set train_chunk=0"
    ):
        split(batch, aligned, 7)
    assert split(batch, aligned, 0) == split(batch, aligned, 30) == [batch]
    assert forward_for(model, LanguageModel(), batch).state.rows == 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length():
    """65,536 tokens take less than 20 MiB more than 8,192; without pieces, 8,192 take far more."""
    script = Path(__file__).with_name("chunked_memory.py")
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=600, check=True)
    found = json.loads(run.stdout)
    _, short, long, whole = found["peaks"]
    assert long - short < 20
    assert whole - long > 50
    assert found["losses"][1] == pytest.approx(found["losses"][3], rel=1e-6)


SMALL = ("model=visualrwkv6_tiny", "encoder=patch_tiny", "data.scenes=12", "data.rounds=4", "evaluate.samples=0")
SMALL += ("stage.instruct.steps=2", "stage.instruct.batch_size=4", "log_every=1", "precision=fp32")


def read_run(folder, *overrides):
    train(plain(compose(*SMALL, *overrides)), folder)
    return [(record["loss"], record["grad_norm"]) for record in jsonl.records(folder / "log.jsonl")]


def test_a_run(tmp_path):
    """The loss is that of a run without pieces, and the gradient too where it reaches back to the start."""
    (loss, _), (_, norm) = read_run(tmp_path / "whole")
    (same_loss, _), (_, other_norm) = read_run(tmp_path / "cut", "train_chunk=24")
    assert same_loss == pytest.approx(loss, rel=1e-6)
    assert other_norm != pytest.approx(norm, rel=1e-5)
    _, (_, same_norm) = read_run(tmp_path / "exact", "train_chunk=24", "horizon=99")
    assert same_norm == pytest.approx(norm, rel=1e-5)
