"""VisualRWKV v7.10 as the original code computes it: RWKV-7 as vision encoder, a second channel mix, a class head.

The case is not in the repository's copies: a clone without the full set skips these tests.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mmrnn import weights
from mmrnn.backbones import RWKV6, RWKV7, VisualChannelMix, scan
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.validate import check
from mmrnn.connectors import Identity
from mmrnn.encoders import PatchEmbed, RecurrentEncoder
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import Classification, LanguageModel, WeightedSum
from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Layout, Sequence
from tests.designs.visualrwkv7 import close, compare_gradients, language


@pytest.fixture(scope="module")
def case(golden):
    return golden("visualrwkv710_encoder")


@pytest.fixture(scope="module")
def model(case, params):
    meta, tensors = case
    config, given = meta["config"], params(tensors)
    width, ranks = config["n_embd"], {"decay_rank": "w1", "rate_rank": "a1", "gate_rank": "g1"}
    found = {knob: given[f"vrwkv.blocks.0.att.{name}"].shape[1] for knob, name in ranks.items()}
    found["residual_rank"] = given["vrwkv.blocks.1.att.v1"].shape[1]
    heads, size = given["vrwkv.blocks.0.att.r_k"].shape
    blocks = RWKV7(vocab=0, width=width, depth=config["v_layers"], heads=heads, head_size=size, **found)
    patches = PatchEmbed(patch=config["patch"], width=width, size=config["image"], positions="none", norm=False)
    encoder, backbone = RecurrentEncoder(tower=patches, blocks=blocks, scan=scan.forward), language(config, given)
    model = VLM(backbone, {"image": Modality(encoder, Identity(width))}, hook=VisualChannelMix(backbone))
    report = weights.load(model, given)
    assert report.format == "visualrwkv_v710"
    assert sorted(report.ignored) == ["vrwkv.head.bias", "vrwkv.head.weight"]
    return model


@pytest.fixture(scope="module")
def batch(case, model):
    """Rows of a length that is no multiple of 16 upstream fills up in front, by id 261."""
    meta, tensors = case
    config, mark = meta["config"], meta["config"]["image_id"]
    layout = model.modalities["image"].layout(config["image"], config["image"])
    ids, labels = tensors["in/ids"], tensors["in/labels"]
    more = -ids.shape[1] % 16
    ids, labels = F.pad(ids, (more, 0), value=261), F.pad(labels, (more, 0), value=IGNORE)
    spans = tuple(
        ImageSpan(row, int((ids[row] == mark).nonzero()[0]), layout, class_id=int(tensors["in/classes"][row]))
        for row in range(len(ids))
    )
    return Batch(Sequence(ids.masked_fill(ids == mark, SLOT), spans, labels=labels), {"image": tensors["in/images"]})


@pytest.mark.golden
def test_from_pixels_to_gradients(case, model, batch, params):
    meta, tensors = case
    modality = model.modalities["image"]
    close(modality.encode(batch.images["image"]), tensors["out/image_features"], 1e-4)
    classify = Classification(model, classes=meta["config"]["classes"])
    classify.head.load_state_dict(params(tensors, "param/vrwkv.head."))
    output, real = model(batch), slice(-tensors["in/ids"].shape[1], None)
    close(output.sequence.embeds[:, real], tensors["out/embeds"], 1e-4)
    assert torch.equal(batch.sequence.visual[:, real, None], tensors["out/mask"].bool())
    close(model.head(output.hidden)[:, real], tensors["out/logits"], 2e-4)
    close(classify.logits(output, [*batch.sequence.image_spans]), tensors["out/class_logits"], 1e-4)
    close(classify(model, output), tensors["out/class_loss"], 2e-5)
    both = WeightedSum(model, parts=[LanguageModel(), classify])
    close(both(model, output), tensors["out/loss"], 2e-5)
    model.backbone.requires_grad_(False)
    WeightedSum(model, parts=[LanguageModel(l2wrap=1e-4), classify])(model, model(batch)).backward()
    expected = params(tensors, "grad/")
    assert not [name for name in expected if name.startswith("rwkv.") and "_v." not in name]
    for prefix, part in (("vrwkv.", modality.encoder), ("rwkv.", model.hook)):
        own = {name.removeprefix(prefix): value for name, value in expected.items() if name.startswith(prefix)}
        compare_gradients(part, {name: value for name, value in own.items() if not name.startswith("head.")}, 2e-4)
    for name in ("weight", "bias"):
        value = expected[f"vrwkv.head.{name}"]
        assert (classify.head.get_parameter(name).grad - value).abs().max() <= 2e-4 * value.abs().max()
    model.backbone.requires_grad_(True)


def tiny(kind=RWKV7, **ranks) -> VLM:
    torch.manual_seed(0)
    backbone = kind(vocab=300, width=16, depth=2, head_size=8, **ranks)
    for value in (*backbone.parameters(),):  # a fresh RNN ignores what was before
        if value.dim() == 2 and not value.any():
            torch.nn.init.normal_(value, std=0.3)
    hook = VisualChannelMix(backbone)
    hook.init_from(backbone)
    encoder = PatchEmbed(patch=8, width=16, size=16)
    return VLM(backbone, {"image": Modality(encoder, Identity(16))}, hook=hook).eval()


def row(model: VLM) -> Batch:
    layout = model.modalities["image"].layout(16, 16)
    ids = torch.randint(1, 300, (2, 11))
    for start in (2, 7):
        ids[:, start : start + 4] = SLOT
    spans = tuple(ImageSpan(number, start, layout) for start in (2, 7) for number in range(2))
    return Batch(Sequence(ids, spans), {"image": torch.randn(4, 3, 16, 16)})


@pytest.mark.parametrize("kind", [RWKV7, RWKV6])
@torch.no_grad()
def test_a_row_read_in_parts(kind):
    """Each channel mix continues from its own token shift, also over text."""
    model = tiny(kind)
    for parts in model.hook.layers:
        for value in parts.parameters():
            value.add_(0.3 * torch.randn_like(value))
    batch = row(model)
    whole = model(batch)
    first = model(batch.slice(0, 6))
    middle = model(batch.slice(6, 7), first.state)
    last = model(batch.slice(7, 11), middle.state)
    close(torch.cat([first.hidden, middle.hidden, last.hidden], dim=1), whole.hidden, 2e-5)
    plain = VLM(model.backbone, dict(model.modalities)).eval()
    assert (plain(batch).hidden - whole.hidden).abs().max() > 0.05


@torch.no_grad()
def test_copies_compute_the_same():
    model = tiny()
    batch = row(model)
    close(model(batch).hidden, VLM(model.backbone, dict(model.modalities)).eval()(batch).hidden, 1e-5)


def test_attention_has_no_norm_that_a_hook_may_replace():
    with pytest.raises(ConfigError, match="hook: VisualChannelMix changes the mlp_norm of a block"):
        check(compose("model=llava15_tiny", "hook=visual_channel_mix"))


def test_images_without_a_class_are_left_out():
    model = tiny()
    classify, batch = Classification(model, classes=3), row(model)
    loss = classify(model, model(batch))
    assert (classify.num_units(batch), loss.item()) == (0, 0)
    loss.backward()
    first, *others = batch.sequence.image_spans
    known = replace(batch.sequence, image_spans=(replace(first, class_id=2), *others))
    known = replace(batch, sequence=known)
    assert classify.num_units(known) == 1
    assert classify(model, model(known)) > 0
    with pytest.raises(ValueError, match=r"class_id 2 of a sample must be below classes \(2\)"):
        Classification(model, classes=2)(model, model(known))


def test_blocks_of_another_width_are_refused():
    blocks, narrow = RWKV7(vocab=0, width=16, depth=1, head_size=8), PatchEmbed(patch=8, width=8, size=16)
    with pytest.raises(ValueError, match="the blocks have the width 16, and the tower in front of them 8"):
        RecurrentEncoder(tower=narrow, blocks=blocks, scan=scan.forward)
    assert RecurrentEncoder(
        tower=PatchEmbed(patch=8, width=16, size=16), blocks=blocks, scan=scan.bidirectional
    ).layout(16, 16) == Layout(rows=2, cols=2)
