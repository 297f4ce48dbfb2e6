"""Hooks, positions and masks of single designs against golden cases of the original projects."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from mmrnn.backbones.cross_attention import GatedBlock, GatedCrossAttention
from mmrnn.backbones.expert import VisualExpert, expert_mask
from mmrnn.backbones.glm import GLM
from mmrnn.backbones.positions import shared_image
from mmrnn.backbones.transformer import Transformer
from mmrnn.config.instantiate import instantiate
from mmrnn.inference.generate import generate
from mmrnn.model.vlm import VLM
from mmrnn.types import SLOT, Batch, ImageSpan, Layout, Sequence
from mmrnn.weights import load

pytestmark = pytest.mark.golden
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)


def llama(config):
    knobs = {name: config[name] for name in ("vocab", "width", "heads", "ffn", "eps")}
    return Transformer(depth=config["layers"], **knobs)


def loss(model, hidden, labels):
    return F.cross_entropy(model.head(hidden)[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@pytest.mark.parametrize("names", ["sat", "hf"])
def test_cogvlm(golden, params, names):
    case, tensors = golden("cogvlm_expert")
    config, weights = case["config"], params(tensors)
    if names == "hf":
        weights = {case["hf_names"][name]: value for name, value in weights.items()}
    backbone = llama(config)
    assert load(backbone, weights).format == f"cogvlm_{names}"
    hook = VisualExpert(backbone)
    assert load(hook, weights).format == f"cogvlm_{names}"
    model = VLM(backbone, {}, hook=hook, position=shared_image).eval()

    types = tensors["in/token_type_ids"].bool()
    ids = torch.where(types, SLOT, tensors["in/input_ids"])
    side = config["img"] // config["patch"]
    layout = Layout(side, side, prefix=1, suffix=1)
    blocks = tuple(ImageSpan(row, 1, layout) for row in range(len(ids)))
    sequence = Sequence(ids, blocks, embeds=tensors["out/embeds"])
    assert torch.equal(expert_mask(sequence.visual), tensors["in/expert_mask"].bool())
    real = torch.arange(ids.shape[1]) <= (tensors["in/labels"] != -100).int().cumsum(1).argmax(1)[:, None]
    assert torch.equal(shared_image(sequence)[real], tensors["in/position_ids"][real])
    hidden, _ = model.run_backbone(sequence)
    close(model.head(hidden), tensors["out/logits"])
    close(loss(model, hidden, tensors["in/labels"]), tensors["out/loss"])
    text = tensors["in/text_only_ids"]
    hidden, _ = model.run_backbone(Sequence(text, embeds=backbone.embed(text)))
    close(model.head(hidden), tensors["out/text_only_logits"])

    # Greedy replies from the state: positions continue after the one of the image.
    prompt = torch.where(tensors["in/greedy_token_type_ids"].bool(), SLOT, tensors["in/greedy_input_ids"])
    embeds = backbone.embed(prompt.clamp(min=0))
    embeds[:, 1 : 1 + layout.tokens] = tensors["out/embeds"][:1, 1 : 1 + layout.tokens]
    asked = Sequence(prompt, (ImageSpan(0, 1, layout),), embeds=embeds)
    assert torch.equal(shared_image(asked), tensors["in/greedy_position_ids"])
    model.embed = lambda batch: batch.sequence
    [reply] = generate(model, Batch(asked), max_new_tokens=config["new"])
    assert reply == tensors["out/greedy_ids"][0].tolist()


def test_a_copied_expert_changes_nothing():
    torch.manual_seed(0)
    backbone = Transformer(vocab=50, width=32, depth=2, heads=2, ffn=48).eval()
    ids = torch.cat([torch.randint(1, 50, (2, 3)), torch.full((2, 4), SLOT), torch.randint(1, 50, (2, 3))], 1)
    embeds = torch.randn(2, 10, 32)
    sequence = Sequence(ids, (ImageSpan(0, 3, Layout(2, 2)), ImageSpan(1, 3, Layout(2, 2))), embeds=embeds)
    hook = VisualExpert(backbone)
    model = VLM(backbone, {}, hook=hook)
    bare, _ = backbone(sequence)
    torch.testing.assert_close(model.run_backbone(sequence)[0], bare)
    with torch.no_grad():
        hook.layers[0]["mlp"].up.weight.mul_(1.5)
    assert (model.run_backbone(sequence)[0] - bare).abs().max() > 1e-4
    hook.init_from(backbone)
    torch.testing.assert_close(model.run_backbone(sequence)[0], bare)


def flamingo(golden, params):
    case, tensors = golden("perceiver")
    config = case["config"]
    weights = {name: value for name, value in params(tensors).items() if not name.startswith("alone_")}
    backbone = llama(config)
    assert load(backbone, weights).format == "openflamingo"
    sizes = {"every": config["every"], "heads": config["x_heads"], "head_size": config["dim_head"]}
    hook = GatedCrossAttention(backbone, config["v_width"], **sizes)
    assert load(hook, weights).format == "openflamingo"
    ids = tensors["in/ids"]
    places = [(row, at) for row, places in enumerate(config["img_at"]) for at in places]
    blocks = tuple(ImageSpan(row, at, Layout(cross_attention=config["latents"])) for row, at in places)
    media = torch.cat([tensors["out/media"][row, : len(places)] for row, places in enumerate(config["img_at"])])
    return case, tensors, VLM(backbone, {}, hook=hook).eval(), Sequence(ids, blocks, media=media)


def test_flamingo(golden, params):
    case, tensors, model, sequence = flamingo(golden, params)
    limit, count = case["config"]["new"], len(case["config"]["img_at"][0])
    hidden, _ = model.run_backbone(sequence)
    real = tensors["in/mask"].bool()
    close(model.head(hidden)[real], tensors["out/logits"][real])
    close(loss(model, hidden, tensors["in/labels"]), tensors["out/loss"])

    row = Sequence(sequence.ids[:1], sequence.image_spans[:count], media=sequence.media[:count])
    model.embed = lambda batch: replace(batch.sequence, embeds=model.backbone.embed(batch.sequence.ids))
    [reply] = generate(model, Batch(row), max_new_tokens=limit)
    assert reply == tensors["out/greedy_ids"][0].tolist()
    for chunk in (1, 3, 8):
        assert generate(model, Batch(row), max_new_tokens=limit, prefill_chunk=chunk) == [reply]

    with torch.no_grad():
        for block in model.hook.blocks.values():
            block.gate.zero_(), block.mlp_gate.zero_()
    hidden, _ = model.run_backbone(sequence)
    close(model.head(hidden)[real], tensors["out/logits_zero_gates"][real])


def test_gated_block(golden, params):
    case, tensors = golden("perceiver")
    config = case["config"]
    block = GatedBlock(config["width"], config["v_width"], config["x_heads"], config["dim_head"])
    names = {"attn.norm": "norm", "attn.to_q": "query", "attn.to_kv": "kv", "attn.to_out": "output"}
    names |= {"attn_gate": "gate", "ff_gate": "mlp_gate", "ff": "mlp"}
    weights = {}
    for name, value in params(tensors, "param/alone_block.").items():
        old = next(old for old in names if name.startswith(old))
        weights[names[old] + name.removeprefix(old)] = value
    block.load_state_dict(weights)
    bank = tensors["out/alone_latents"]
    number = tensors["in/alone_media_locations"].long().cumsum(1) - 1
    which = torch.arange(bank.shape[1]).repeat_interleave(bank.shape[2])
    out = block(tensors["in/alone_text"], bank.flatten(1, 2), number[..., None] == which)
    close(out, tensors["out/alone_block_out"])
    everywhere = torch.ones_like(number[..., None] == which)
    close(block(tensors["in/alone_text"], bank.flatten(1, 2), everywhere), tensors["out/alone_block_no_locations"])


@pytest.fixture
def visualglm(golden, params):
    case, tensors = golden("visualglm")
    config = case["config"]
    knobs = {name: config[name] for name in ("vocab", "width", "heads", "ffn")}
    backbone = GLM(depth=config["layers"], **knobs)
    assert load(backbone, params(tensors)).format == "visualglm"
    sop = 2  # of the toy tokenizer
    position = instantiate({"_target_": "mmrnn.backbones.positions.glm_2d", "_partial_": True, "sop": sop})
    mask = instantiate({"_target_": "mmrnn.backbones.masks.prefix", "_partial_": True, "start": sop})
    return case, tensors, VLM(backbone, {}, position=position, mask=mask).eval()


def glm_sequence(model, ids, visual, pre_image):
    ids = ids.clone()
    blocks = ()
    embeds = model.backbone.embed(ids)
    if pre_image:
        count = visual.shape[1]
        ids[:, pre_image : pre_image + count] = SLOT
        embeds[:, pre_image : pre_image + count] = visual
        blocks = tuple(ImageSpan(row, pre_image, Layout(prefix=count)) for row in range(len(ids)))
    return Sequence(ids, blocks, embeds=embeds)


def test_visualglm_training(visualglm):
    case, tensors, model = visualglm
    start = next(ask["pre_image"] for ask in case["asks"] if ask["has_image"])
    ids, labels = tensors["in/train_ids"], tensors["in/train_labels"]
    sequence = glm_sequence(model, ids, tensors["out/visual_tokens"], start)
    assert torch.equal(model.position(sequence, None).movedim(-1, 1), tensors["out/train_position_ids"])
    assert torch.equal(model.mask(sequence), tensors["out/train_mask"].bool())
    hidden, _ = model.run_backbone(sequence)
    close(model.head(hidden), tensors["out/train_logits"])
    close(loss(model, hidden, labels), tensors["out/train_loss"])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_visualglm_asked(visualglm, number):
    case, tensors, model = visualglm
    ids = tensors[f"in/ask_{number}_ids"][None]
    sequence = glm_sequence(model, ids, tensors["out/visual_tokens"][:1], case["asks"][number]["pre_image"])
    places = tensors[f"out/ask_{number}_position_ids"].T[None, : ids.shape[1]]
    assert torch.equal(model.position(sequence, None), places)
    mask = tensors[f"out/ask_{number}_mask"].bool()[None, : ids.shape[1], : ids.shape[1]]
    assert torch.equal(model.mask(sequence), mask)
    model.embed = lambda batch: batch.sequence
    [reply] = generate(model, Batch(sequence), max_new_tokens=case["config"]["new"])
    assert reply == tensors[f"out/ask_{number}_greedy_ids"].tolist()
