"""Any number of images of any shape in any place, and text alone among them: nobody notices the neighbours."""

import pytest
import torch
from PIL import Image

from mmrnn.backbones import RWKV6, RWKV7, Transformer
from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.connectors import MLP
from mmrnn.data import Collator
from mmrnn.model.vlm import VLM, Modality
from mmrnn.prompts import Template
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import LanguageModel
from mmrnn.types import IGNORE, Sample, Sequence, Turn

BACKBONES = {
    "rwkv6": lambda: RWKV6(vocab=1024, width=16, depth=2, head_size=8),
    "rwkv7": lambda: RWKV7(vocab=1024, width=16, depth=2, head_size=8),
    "transformer": lambda: Transformer(vocab=1024, width=16, depth=2, heads=2, ffn=24),
}
ENCODERS = ("patch_tiny", "fuyu_tiny", "eve_tiny")
"""One size for all, and two that keep the shape of every image."""

PROMPT = Template(
    system="", first="{text}:", image_position="inline", image_separator="", reply="{text}\n\n", stops=("\n\n",)
)


class Paint:
    def __init__(self, width, height):
        self.key, self.size = f"{width} x {height}", (width, height)

    def open(self):
        return Image.linear_gradient("L").resize(self.size).convert("RGB")


def sample(text, *sizes):
    return Sample((Turn("user", text), Turn("assistant", "an answer")), tuple(Paint(*size) for size in sizes))


SAMPLES = [
    sample("<image>what?", (30, 20)),
    sample("no image here"),
    sample("first <image>then <image>", (20, 31), (40, 9)),
    sample("<image><image> and <image>", (8, 8), (30, 20), (9, 40)),
    sample("a long text without any image at all, longer than the others may be"),
]


def model(encoder, backbone):
    torch.manual_seed(0)
    eye = instantiate(plain(compose(config=f"encoder/{encoder}"))["encoder"])
    made = VLM(BACKBONES[backbone](), {"image": Modality(eye, MLP(eye.width, 16))})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def collator(made, **knobs):
    return Collator(DemoTokenizer(), PROMPT, dict(made.modalities), **knobs)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_row_is_what_it_is_alone(encoder, backbone):
    made = model(encoder, backbone).eval()
    batch = collator(made)(SAMPLES)
    shapes = {image.shape for image in batch.images["image"]}
    assert len(shapes) == (1 if encoder == "patch_tiny" else 5)
    assert [block.sample for block in batch.sequence.image_spans] == [0, 2, 2, 3, 3, 3]
    hidden = made(batch).hidden
    packed = collator(made, pack=True, max_length=1000)(SAMPLES)
    assert len(packed.sequence.ids) == 1
    row, start = made(packed).hidden[0], 0
    for index, one in enumerate(SAMPLES):
        alone = made(collator(made)([one])).hidden[0]
        torch.testing.assert_close(hidden[index, : len(alone)], alone, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(row[start : start + len(alone)], alone, atol=2e-5, rtol=1e-4)
        start += len(alone)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_text_among_images_is_read_as_by_the_bare_language_model(encoder, backbone):
    """No dummy image and no padding enters the state of an RNN, or the cache of a transformer."""
    made = model(encoder, backbone).eval()
    batch = collator(made, for_generation=True)(SAMPLES)
    state = made(batch).state
    for index in (1, 4):
        ids = batch.sequence.ids[index][batch.sequence.segments[index] == 1][None]
        assert (ids >= 0).all()
        hidden, bare = made.backbone(Sequence(ids))
        for layer, wanted in zip(state.layers, bare.layers, strict=True):
            for name, value in wanted.items():
                ours = layer[name][index]
                ours = ours[:, -value.shape[2] :] if name in ("key", "value") else ours
                torch.testing.assert_close(ours, value[0], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(made(batch).hidden[index, -1], hidden[0, -1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_text_alone_gives_the_connector_no_gradient(backbone):
    made = model("patch_tiny", backbone)
    batch = collator(made)([SAMPLES[1], SAMPLES[4]])
    assert not batch.images
    loss = LanguageModel()(made, made(batch))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is None for parameter in made.modalities.parameters())
    mixed = collator(made)(SAMPLES)
    assert ((mixed.sequence.labels != IGNORE).sum(1) > 0).all()
    LanguageModel()(made, made(mixed)).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in made.modalities["image"].connector.parameters())
