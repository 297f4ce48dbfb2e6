"""EVE, Fuyu and Flamingo as wholes: raw patches in slots, and images beside the text."""

from functools import partial

import pytest
import torch
from PIL import Image

from mmrnn.backbones import GatedCrossAttention
from mmrnn.backbones.hf import HFDecoder
from mmrnn.connectors import MLP, CrossAttentionTokens, Linear, Perceiver, RowSeparators
from mmrnn.data.preprocess import to_tensor
from mmrnn.encoders import EVEPatchEmbed, Patchify
from mmrnn.inference.generate import generate
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import PatchAlignment
from mmrnn.types import SLOT, Batch, ImageSpan, Layout, Sequence
from mmrnn.weights import load

pytestmark = pytest.mark.golden

CLIP = "vit_large_patch14_clip_quickgelu_336"


def compare(case):
    return partial(torch.testing.assert_close, **case["tolerance"])


def make_image(raw):
    return Image.fromarray(raw.permute(1, 2, 0).to(torch.uint8).numpy())


@torch.no_grad()
def test_eve(golden, params, llama, vit, spread, loss):
    """Images of two shapes and a row of text; the language loss, and that of the patches against the teacher's."""
    case, tensors = golden("eve_tower")
    config, close, weights = case["config"], compare(case), params(tensors)
    encoder = EVEPatchEmbed(patch=config["ps"], width=config["pel"], size=config["img"], window=config["cs"])
    modality = Modality(encoder, MLP(config["pel"], config["width"]))
    model = VLM(llama(config), {"image": modality}).eval()
    sizes = {"img": config["img_clip"], "patch": config["ps_clip"]}
    sizes |= {f"v_{name}": config[f"t_{name}"] for name in ("width", "layers", "heads", "ffn")}
    objective = PatchAlignment(model, teacher=vit(CLIP, sizes, layer=-2))
    outer = {name: value for name, value in weights.items() if "vision_tower" not in name and "vision_clip" not in name}
    language = {name: value for name, value in outer.items() if "mm_projector" not in name}
    for part, named in (
        (encoder, weights),
        (modality.connector, weights),
        (model.backbone, language),
        (objective, weights),
    ):
        load(part, named)

    images = [to_tensor(make_image(tensors[f"in/raw_{row}"]), encoder.image) for row in range(len(config["pics"]))]
    layouts = [modality.layout(*image.shape[-2:]) for image in images]
    ids, mask = tensors["in/input_ids"], tensors["out/expanded_mask"]
    # Upstream says how long the rows are once the images are in them.
    slots = torch.tensor([layout.tokens - 1 for layout in layouts] + [0] * (len(ids) - len(layouts)))
    real = torch.arange(ids.shape[1]) < (mask.sum(1) - slots)[:, None]
    sequence = spread(ids, real, tensors["in/labels"], layouts)
    assert [block.sample for block in sequence.image_spans] == list(range(len(images)))
    output = model(Batch(sequence, {"image": tuple(images)}), output_hidden_states=True)
    known, length = mask.bool(), output.hidden.shape[1]
    assert known.sum() == real.sum() + slots.sum()
    known = known[:, :length]
    close(output.sequence.embeds[known], tensors["out/embeds"][:, :length][known])
    for ours, theirs in zip(output.hidden_states, tensors["in/hidden_states"], strict=True):
        close(ours[known], theirs[:, :length][known])
    logits = model.head(output.hidden)
    close(logits[known], tensors["out/logits"][:, :length][known])
    cross_entropy = loss(logits, sequence.labels)
    close(cross_entropy, tensors["out/ce_loss"])

    side, apart = config["img_clip"] // config["ps_clip"], []
    for row, block in enumerate(sequence.image_spans):
        valid = tensors["in/teacher_mask"][row].bool()
        goal = tensors["in/teacher_features"][row].view(side, side, -1)[valid.any(1)][:, valid.any(0)]
        apart.append(objective.loss(objective.student(output.hidden_states, block, *goal.shape[:2]), goal))
    close(torch.stack(apart), tensors["out/pal_per_image"][: len(apart)])
    close(torch.stack(apart).mean(), tensors["out/pal_loss"])
    close(cross_entropy + torch.stack(apart).mean(), tensors["out/total_loss"])


@torch.no_grad()
def test_fuyu(golden, params):
    case, tensors = golden("fuyu_hf")
    config, close, weights = case["config"], compare(case), params(tensors)
    arch = {"num_hidden_layers": config["layers"], "num_attention_heads": config["heads"]}
    arch |= {"intermediate_size": config["ffn"], "rope_theta": config["theta"], "layer_norm_eps": config["eps"]}
    arch |= {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    backbone = HFDecoder(name="persimmon", vocab=config["vocab"], width=config["width"], arch=arch)
    most = case["images"]["image_0"]["max_size"]
    encoder = Patchify(patch=config["patch"], size=(most["height"], most["width"]), resize="within")
    model = VLM(
        backbone, {"image": Modality(encoder, RowSeparators(encoder.width, backbone.width, part=Linear))}
    ).eval()
    newline = weights["language_model.model.embed_tokens.weight"][config["newline_id"]]
    assert load(model.modalities["image"].connector, {**weights, "newline": newline}).format == "fuyu_hf"
    assert load(backbone, weights).format == "hf_vlm"

    pixels = to_tensor(make_image(tensors["in/image_0"]), encoder.image)[None]
    layout = model.modalities["image"].layout(*pixels.shape[-2:])
    assert layout.tokens == len(tensors["out/image_ids_0"])
    ids = tensors["in/ids"].clone()
    ids[:, : layout.tokens] = SLOT
    batch = Batch(Sequence(ids, (ImageSpan(0, 0, layout),)), {"image": pixels})
    close(model.head(model(batch).hidden), tensors["out/logits"])
    assert generate(model, batch, max_new_tokens=config["new"]) == tensors["out/greedy_ids"].tolist()
    text = Batch(Sequence(ids[:, layout.tokens :]))
    close(model.head(model(text).hidden), tensors["out/text_only_logits"])


@torch.no_grad()
def test_flamingo(golden, params, llama, vit, loss):
    """Rows with two images and with one; upstream pads the second with an image that no text asks for."""
    case, tensors = golden("perceiver")
    config, close = case["config"], compare(case)
    weights = {name: value for name, value in params(tensors).items() if not name.startswith("alone_")}
    ffn = len(weights["vision_encoder.transformer.resblocks.0.mlp.c_fc.weight"])
    encoder, backbone = vit(CLIP, {**config, "v_ffn": ffn}, norm=True), llama(config)
    load(encoder, params(tensors, "param/vision_encoder."))
    knobs = {"latents": config["latents"], "depth": config["depth"], "heads": config["p_heads"]}
    part = partial(Perceiver, **knobs, head_size=config["dim_head"])
    connector = CrossAttentionTokens(encoder.width, backbone.width, part=part)
    sizes = {"every": config["every"], "heads": config["x_heads"], "head_size": config["dim_head"]}
    hook = GatedCrossAttention(backbone, connector.width, **sizes)
    for one in (connector.part, backbone, hook):
        assert load(one, weights).format == "openflamingo"
    model = VLM(backbone, {"image": Modality(encoder, connector)}, hook=hook).eval()

    pixels = tensors["in/pixel_values"]
    close(encoder(pixels.flatten(0, 2)), tensors["out/vision_tokens"].flatten(0, 2))
    layout = model.modalities["image"].layout(*encoder.image.size)
    assert layout == Layout(cross_attention=config["latents"])
    blocks = tuple(ImageSpan(row, at, layout) for row, places in enumerate(config["img_at"]) for at in places)
    images = torch.cat([pixels[row, : len(places), 0] for row, places in enumerate(config["img_at"])])
    output = model(Batch(Sequence(tensors["in/ids"], blocks), {"image": images}))
    logits, real = model.head(output.hidden), tensors["in/mask"].bool()
    close(logits[real], tensors["out/logits"][real])
    close(loss(logits, tensors["in/labels"]), tensors["out/loss"])
    count = len(config["img_at"][0])
    asked = Batch(Sequence(tensors["in/ids"][:1], blocks[:count]), {"image": images[:count]})
    assert generate(model, asked, max_new_tokens=config["new"]) == tensors["out/greedy_ids"].tolist()
