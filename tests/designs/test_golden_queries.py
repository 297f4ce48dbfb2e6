"""BLIP-2, VisualGLM, Qwen-VL and CogVLM as wholes: from pixels and ids to logits, loss and replies."""

import re
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from mmrnn.backbones import GLM, VisualExpert
from mmrnn.backbones.hf import HFDecoder, HFEncoderDecoder
from mmrnn.backbones.positions import shared_image
from mmrnn.config.instantiate import instantiate
from mmrnn.connectors import GLU, BeginEndTokens, Linear, QFormer, Resampler, Sequential
from mmrnn.inference.generate import generate
from mmrnn.model.vlm import VLM, Modality
from mmrnn.types import IGNORE, SLOT, Batch, Layout, Sequence
from mmrnn.weights import load

pytestmark = pytest.mark.golden

EVA_G = "eva_giant_patch14_clip_224"
EVA_E = "eva02_enormous_patch14_clip_224"


def compare(case):
    return partial(torch.testing.assert_close, **case["tolerance"])


def qformer(config, **more):
    knobs = {name: config[f"q_{name}"] for name in ("width", "heads", "ffn")}
    return partial(QFormer, depth=config["q_layers"], **knobs, **more)


def blip2(config, vit, backbone, weights):
    """The model of a case of Hugging Face, each part filled from the file of the whole model."""
    encoder = vit(EVA_G, config, cls="first", extra_norm=1e-6)
    parts = [qformer(config, queries=config["queries"]), Linear]
    modality = Modality(encoder, Sequential(encoder.width, config["width"], parts=parts))
    for part in (encoder, modality.connector, backbone):
        load(part, weights)
    return VLM(backbone, {"image": modality}).eval()


@torch.no_grad()
def test_blip2_with_opt(golden, params, vit, filled, loss):
    case, tensors = golden("blip2_hf")
    config, close, weights = case["config"], compare(case), params(tensors)
    arch = {"num_hidden_layers": config["layers"], "num_attention_heads": config["heads"], "ffn_dim": config["ffn"]}
    arch |= {"word_embed_proj_dim": config["width"], "dropout": 0.0}
    # The table of OPT begins with two positions that nothing stands at.
    arch["max_position_embeddings"] = len(weights["language_model.model.decoder.embed_positions.weight"]) - 2
    backbone = HFDecoder(vocab=config["vocab"], width=config["width"], arch=arch)
    model = blip2(config, vit, backbone, weights)
    ids = partial(filled, mark=config["image_id"], layout=Layout(prefix=config["queries"]))
    pixels = {"image": tensors["in/pixel_values"]}
    output = model(Batch(ids(tensors["in/ids"]), pixels))
    logits, real = model.head(output.hidden), tensors["in/mask"].bool()
    close(logits[real], tensors["out/logits"][real])
    close(loss(logits, tensors["in/labels"]), tensors["out/loss"])
    asked = Batch(ids(tensors["in/greedy_prompt_ids"]), pixels)
    assert generate(model, asked, max_new_tokens=config["new"]) == tensors["out/greedy_ids"].tolist()


@torch.no_grad()
def test_blip2_with_t5(golden, params, vit, filled):
    """Questions are asked one by one, for upstream pads them on the right."""
    case, tensors = golden("blip2_t5_hf")
    config, close, weights = case["config"], compare(case), params(tensors)
    table = weights["language_model.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    farthest = int(re.search(r"max distance (\d+)", " ".join(case["notes"]))[1])
    arch = {"num_layers": config["layers"], "num_heads": config["heads"], "d_kv": config["d_kv"], "d_ff": config["ffn"]}
    arch |= {
        "relative_attention_num_buckets": len(table),
        "relative_attention_max_distance": farthest,
        "dropout_rate": 0.0,
    }
    arch |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    model = blip2(config, vit, HFEncoderDecoder(vocab=config["vocab"], width=config["width"], arch=arch), weights)
    modality, pixels = model.modalities["image"], tensors["in/pixel_values"]
    close(modality.connector.parts[0](modality.encode(pixels)), tensors["out/query_output"])
    layout = Layout(prefix=config["queries"])
    for row, length in enumerate(tensors["in/mask"].sum(1).tolist()):
        context = tensors["in/ids"][row : row + 1, :length]
        reply = tensors["in/labels"][row][tensors["in/labels"][row] != IGNORE]
        whole = torch.cat([context, reply[None]], dim=1)
        labels = torch.cat([torch.full_like(context, IGNORE), reply[None]], dim=1)
        image = {"image": pixels[row : row + 1]}
        output = model(Batch(filled(whole, config["image_id"], layout, labels=labels), image))
        close(model.head(output.hidden)[0, length - 1 : -1], tensors["out/logits"][row, : len(reply)])
        asked = Batch(filled(context, config["image_id"], layout), image)
        assert generate(model, asked, max_new_tokens=config["new"]) == [tensors["out/greedy_ids"][row].tolist()]


@pytest.fixture
def visualglm(golden, params, vit):
    case, tensors = golden("visualglm")
    config, weights, sop = case["config"], params(tensors), 2  # of the toy tokenizer
    encoder = vit(EVA_G, config, cls="first", extra_norm=True)
    connector = qformer(config, queries=case["image_length"])(encoder.width, config["width"])
    knobs = {name: config[name] for name in ("vocab", "width", "heads", "ffn")}
    backbone = GLM(depth=config["layers"], **knobs)
    load(encoder, params(tensors, "param/mixins.eva.model.vit."))
    for part in (connector, backbone):
        assert load(part, weights).format == "visualglm"
    more = {
        "position": instantiate({"_target_": "mmrnn.backbones.positions.glm_2d", "_partial_": True, "sop": sop}),
        "mask": instantiate({"_target_": "mmrnn.backbones.masks.prefix", "_partial_": True, "start": sop}),
    }
    return case, tensors, VLM(backbone, {"image": Modality(encoder, connector)}, **more).eval()


def shown(ids, case, filled):
    """The fillers behind `<img>` are the slots."""
    start, count = next(one["pre_image"] for one in case["asks"] if one["has_image"]), case["image_length"]
    ids = ids.clone()
    ids[:, start : start + count] = SLOT
    return filled(ids, SLOT, Layout(prefix=count))


@torch.no_grad()
def test_visualglm_learns(visualglm, filled, loss):
    case, tensors, model = visualglm
    close = compare(case)
    output = model(Batch(shown(tensors["in/train_ids"], case, filled), {"image": tensors["in/pixels"]}))
    logits = model.head(output.hidden)
    close(logits, tensors["out/train_logits"])
    close(loss(logits, tensors["in/train_labels"]), tensors["out/train_loss"])


@torch.no_grad()
def test_visualglm_replies(visualglm, filled):
    case, tensors, model = visualglm
    for number, ask in enumerate(case["asks"]):
        ids = tensors[f"in/ask_{number}_ids"][None]
        sequence = shown(ids, case, filled) if ask["has_image"] else Sequence(ids)
        batch = Batch(sequence, {"image": tensors["in/pixels"][:1]} if ask["has_image"] else {})
        replies = generate(model, batch, max_new_tokens=case["config"]["new"])
        assert replies == [tensors[f"out/ask_{number}_greedy_ids"].tolist()]


@torch.no_grad()
def test_qwen_vl_sees(golden, params, vit):
    """Images of several sizes to the same number of visual tokens."""
    case, tensors = golden("qwen_visual")
    config, weights = case["config"], params(tensors)
    sizes = {f"v_{name}": config[name] for name in ("width", "layers", "heads")}
    sizes |= {"v_ffn": config["width"] * config["mlp_ratio"], "patch": config["patch"]}
    connector = Resampler(config["width"], config["out"], queries=config["queries"], heads=config["pool_heads"])
    assert load(connector, weights).format == "qwen_vl"
    for index, size in enumerate(config["sizes"]):
        arch = {"class_token": False, "norm_layer": "layernorm"}
        encoder = vit("vit_gigantic_patch14_clip_224", {**sizes, "img": size}, pos_interp="plain", arch=arch)
        load(encoder, weights)
        modality = Modality(encoder, connector)
        compare(case)(modality.connect(modality.encode(tensors[f"in/image_{index}"])), tensors[f"out/visual_{index}"])


@pytest.mark.parametrize("names", ["sat", "hf"])
@torch.no_grad()
def test_cogvlm(golden, params, llama, vit, filled, loss, names):
    case, tensors = golden("cogvlm_expert")
    config, close, weights = case["config"], compare(case), params(tensors)
    if names == "hf":
        weights = {case["hf_names"][name]: value for name, value in weights.items()}
    encoder = vit(EVA_E, config)
    connector = BeginEndTokens(encoder.width, config["width"], part=partial(GLU, hidden=config["ffn"]))
    backbone = llama(config)
    hook = VisualExpert(backbone)
    tower = [name for name in weights if "vit_model." in name or ".patch_embedding." in name]
    tower += [name for name in weights if name.startswith("model.vision.transformer.")]
    load(encoder, {name: weights[name] for name in tower})
    for part in (connector, backbone, hook):
        assert load(part, weights).format == f"cogvlm_{names}"
    model = VLM(backbone, {"image": Modality(encoder, connector)}, hook=hook, position=shared_image).eval()

    def ids(name):
        types = tensors[f"in/{name}token_type_ids"].bool()
        layout = model.modalities["image"].layout(*encoder.image.size)
        return filled(tensors[f"in/{name}input_ids"].masked_fill(types, SLOT), SLOT, layout)

    pixels = tensors["in/pixel_values"]
    output = model(Batch(ids(""), {"image": pixels}))
    real = torch.arange(output.hidden.shape[1]) <= (tensors["in/labels"] != IGNORE).int().cumsum(1).argmax(1)[:, None]
    logits = model.head(output.hidden)
    close(output.sequence.embeds[real], tensors["out/embeds"][real])
    close(logits[real], tensors["out/logits"][real])
    close(loss(logits, tensors["in/labels"]), tensors["out/loss"])
    asked = Batch(ids("greedy_"), {"image": pixels[:1]})
    assert generate(model, asked, max_new_tokens=config["new"]) == tensors["out/greedy_ids"].tolist()


@torch.no_grad()
def test_blip2_of_lavis(golden, params, loss):
    """From the features of the tower on; captions with and without words before them."""
    case, tensors = golden("blip2_opt_lavis")
    config, close, weights = case["config"], compare(case), params(tensors)
    arch = {"num_hidden_layers": config["layers"], "num_attention_heads": config["heads"], "ffn_dim": config["ffn"]}
    arch |= {"word_embed_proj_dim": config["width"], "dropout": 0.0}
    arch["max_position_embeddings"] = len(weights["opt_model.model.decoder.embed_positions.weight"]) - 2
    backbone = HFDecoder(vocab=config["vocab"], width=config["width"], arch=arch).eval()
    connector = qformer(config, queries=config["queries"])(config["v_width"], config["width"]).eval()
    for part in (connector, backbone):
        assert load(part, weights).format.startswith("lavis")
    norm = weights["ln_vision.weight"], weights["ln_vision.bias"]
    visual = connector(F.layer_norm(tensors["in/image_feats_raw"], norm[0].shape, *norm))
    for kind, before in (("no_prompt", ""), ("prompt", case["prompt"])):
        mask, targets = tensors[f"out/{kind}_mask"].bool(), tensors[f"out/{kind}_targets"]
        ids = torch.ones_like(targets)
        for row, caption in enumerate(case["captions"]):
            # The toy tokenizer: its BOS is 2, a byte b is b + 4.
            text = [2, *(byte + 4 for byte in f"{before}{caption}\n".encode())][: config["max_txt_len"]]
            ids[row, config["queries"] : config["queries"] + len(text)] = torch.tensor(text)
        embeds = torch.cat([visual, backbone.embed(ids[:, config["queries"] :])], dim=1)
        close(embeds[mask], tensors[f"out/{kind}_embeds"][mask])
        hidden, _ = backbone(Sequence(ids, embeds=embeds))
        close(backbone.head(hidden)[mask], tensors[f"out/{kind}_logits"][mask])
        close(loss(backbone.head(hidden), targets), tensors[f"out/{kind}_loss"])
