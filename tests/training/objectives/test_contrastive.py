"""Contrast of images and texts by hidden states: of any design, packed or not, and as a retrieval head."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

import mmrnn
from mmrnn.checkpoints.save import save
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.config.validate import check
from mmrnn.data import Collator, InMemoryImage
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.embedding import similarity
from mmrnn.model.build import build
from mmrnn.prompts import RWKVChat, Template
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import Contrastive
from mmrnn.types import Sample, Turn
from tests.training.distributed.ranks import run_ranks

COLORS = ("red", "green", "blue", "white")
TINY = ("model=visualrwkv71_tiny", "objective=contrastive", "weights={}")


def sample(color, *, shown=True, text=None):
    turns = (Turn("user", "<image>" if shown else "hi"), Turn("assistant", text or f"a {color} wall"))
    return Sample(turns, (InMemoryImage(Image.new("RGB", (32, 32), color), color),) * shown, id=color)


def model_of(*words):
    torch.manual_seed(0)
    model = build(compose(*TINY, *words)).eval()
    for value in model.backbone.parameters():  # a fresh RNN ignores what was before
        if value.dim() == 2 and not value.any():
            torch.nn.init.normal_(value, std=0.1)
    return model


def collated(model, samples, prompt=None, **knobs):
    return Collator(DemoTokenizer(), prompt or RWKVChat(), dict(model.modalities), **knobs)(samples)


SAMPLES = [sample(color) for color in COLORS]


@pytest.mark.parametrize("text", ["alone", "in_row"])
def test_packed_rows_give_the_same_loss(text):
    """Samples without an image are left out."""
    model, contrast = model_of(), Contrastive(text=text)
    mixed = [sample("grey", shown=False), *SAMPLES]
    apart, packed = collated(model, mixed), collated(model, mixed, pack=True)
    assert contrast.num_units(apart) == contrast.num_units(packed) == len(COLORS)
    losses = [contrast(model, model(batch)) for batch in (apart, packed)]
    torch.testing.assert_close(*losses, atol=2e-5, rtol=0)
    assert losses[0].item() != pytest.approx(math.log(len(COLORS)), abs=1e-3)


def test_of_several_replies_the_last_one_counts():
    model, contrast = model_of(), Contrastive()
    turns = (*SAMPLES[0].turns, Turn("user", "and?"), Turn("assistant", "a small one"))
    row = collated(model, [replace(SAMPLES[0], turns=turns)])
    [pair] = contrast.find_pairs(row.sequence)
    assert DemoTokenizer().decode(row.sequence.ids[0, pair.start : pair.stop].tolist()) == " a small one\n\n"
    assert contrast.num_units(collated(model, [sample("red", shown=False)])) == 0


def test_no_pair_is_no_loss():
    model, contrast = model_of(), Contrastive()
    batch = collated(model, [sample("grey", shown=False)])
    loss = contrast(model, model(batch))
    loss.backward()
    assert loss.item() == 0


def test_what_is_trained_is_what_a_search_compares(tmp_path):
    """The vectors of a loaded checkpoint, which holds no further tensor, give the cosines of the loss."""
    model, contrast = model_of(), Contrastive()
    images, texts = contrast.features(model, model(collated(model, SAMPLES)))
    expected = torch.nn.functional.normalize(images, dim=-1) @ torch.nn.functional.normalize(texts, dim=-1).T
    model.config = plain(compose(*TINY))
    save(model, tmp_path / "saved")
    assistant = mmrnn.load(tmp_path / "saved")
    found = assistant.embed(image=[one.images[0].open() for one in SAMPLES])
    words = assistant.embed(text=[f"a {color} wall" for color in COLORS])
    torch.testing.assert_close(similarity(found, words), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(assistant.embed(text="a red wall")[0], words[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", ["llava15_tiny", "visualrwkv6_tiny", "cogvlm_tiny"])
def test_any_causal_design(preset):
    """It learns to tell four colours apart: its loss falls below that of chance."""
    model = model_of(f"model={preset}")
    prompt = Template() if preset == "llava15_tiny" else RWKVChat()
    contrast, batch = Contrastive(), collated(model, SAMPLES, prompt)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        loss = contrast(model, model(batch))
        loss.backward()
        optimizer.step()
    assert loss < 0.8 * math.log(len(COLORS))


def test_a_bidirectional_language_model_is_refused(monkeypatch):
    model = model_of()
    monkeypatch.setattr(model.backbone, "causal", False)
    with pytest.raises(ValueError, match=r"is not causal: no position .* objective=blip2"):
        Contrastive()(model, model(collated(model, SAMPLES)))


def test_marks_follow_images_and_replies():
    prompt = RWKVChat(image_mark=1024, text_mark=1025)
    model = model_of("backbone.vocab=1026")
    batch, contrast = collated(model, SAMPLES, prompt), Contrastive(marks=True)
    for row, pair in enumerate(contrast.find_pairs(batch.sequence)):
        ids, labels = batch.sequence.ids[row], batch.sequence.labels[row]
        assert (ids[pair.image], ids[pair.stop - 1], labels[pair.stop - 1]) == (1024, 1025, 1025)
    assistant = Assistant(model, DemoTokenizer(), prompt)
    asked = replace(SAMPLES[0], turns=(Turn("user", "<image>what?"), Turn("assistant", "")))
    assert len(assistant.score(asked, ["yes", "no"])) == 2
    with pytest.raises(ConfigError, match=r"prompt\.text_mark: the backbone has no id 65535.* backbone\.vocab=65536"):
        check(compose(*TINY, "prompt.text_mark=65535"))


def learnt(world, rows):
    model, contrast = model_of(), Contrastive()
    own = rows if world is None else rows[world.rank]
    loss = contrast(model, model(collated(model, [SAMPLES[row] for row in own] or [sample("grey", shown=False)])))
    (loss * len(own)).backward()
    return {"loss": loss.detach() * len(own)} | {
        name: value.grad for name, value in model.named_parameters() if value.grad is not None
    }


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[[0, 1], [2, 3]], [[0, 1, 2, 3], []]])
def test_negatives_come_from_all_processes(rows, tmp_path):
    """Two processes learn what one learns, also where one of them has no pair."""
    alone, both = learnt(None, [0, 1, 2, 3]), run_ranks(2, learnt, tmp_path, rows)
    for name, value in alone.items():
        parts = [one[name] for one in both if name in one]
        torch.testing.assert_close(sum(parts), value, atol=1e-5, rtol=1e-3)
