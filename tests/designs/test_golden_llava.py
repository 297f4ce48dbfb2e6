"""LLaVA, Prismatic, MiniGPT-v2 and VILA as wholes: from pixels and ids to logits, loss and replies."""

import json
from functools import partial
from itertools import repeat

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from mmrnn.connectors import MLP, Linear, Merge, Sequential
from mmrnn.encoders import FusedEncoder, Patchify
from mmrnn.inference.generate import generate
from mmrnn.model.vlm import VLM, Modality
from mmrnn.types import SLOT, Batch, Sequence
from mmrnn.weights import load

pytestmark = pytest.mark.golden

CLIP = "vit_large_patch14_clip_quickgelu_336"
SIGLIP = "vit_so400m_patch14_siglip_384"


def compare(case):
    return partial(torch.testing.assert_close, **case["tolerance"])


@torch.no_grad()
def test_llava_of_hugging_face(golden, params, llama, vit, filled, loss):
    case, tensors = golden("llava_hf")
    config, close = case["config"], compare(case)
    encoder = vit(CLIP, config, layer=-2)
    modality = Modality(encoder, MLP(encoder.width, config["width"]))
    model = VLM(llama(config), {"image": modality}).eval()
    assert load(model, params(tensors)).format == "llava_hf"
    ids = partial(filled, mark=config["image_id"], layout=modality.layout(*encoder.image.size))

    def logits(name, pixels):
        output = model(Batch(ids(tensors[f"in/ids_{name}"]), {"image": tensors[f"in/pixel_{pixels}"]}))
        return model.head(output.hidden)

    close(modality.connect(modality.encode(tensors["in/pixel_two"])), tensors["out/image_features"])
    close(logits("one", "one"), tensors["out/logits_one"])
    close(logits("multi", "two"), tensors["out/logits_multi"])
    two, real = logits("two", "two"), tensors["in/mask_two"].bool()
    close(two[real], tensors["out/logits_two"][real])
    close(loss(two, tensors["in/labels_two"]), tensors["out/loss_two"])

    asked = Batch(ids(tensors["in/ids_one"]), {"image": tensors["in/pixel_one"]})
    assert generate(model, asked, max_new_tokens=config["new"]) == tensors["out/greedy_one"].tolist()
    padded = ids(tensors["in/ids_two_left"], segments=tensors["in/mask_two_left"])
    replies = generate(model, Batch(padded, {"image": tensors["in/pixel_two"]}), max_new_tokens=config["new"])
    assert replies == tensors["out/greedy_left_padded"].tolist()


@torch.no_grad()
def test_llava(golden, params, llama, vit, spread, loss):
    """Rows with an image, and one of text alone, which upstream gives a dummy image of no length."""
    case, tensors = golden("llava_orig")
    config, close, weights = case["config"], compare(case), params(tensors)
    weights.pop("model.image_newline")  # LLaVA-1.6 alone has one
    encoder = vit(CLIP, config, layer=-2)
    modality = Modality(encoder, MLP(encoder.width, config["width"]))
    model = VLM(llama(config), {"image": modality}).eval()
    assert load(model, weights).format == "llava"
    close(modality.connect(modality.encode(tensors["in/images"])), tensors["out/image_features"])
    ids = tensors["in/input_ids"]
    layout = modality.layout(*encoder.image.size)
    sequence = spread(ids, tensors["in/attention_mask"], tensors["in/labels"], repeat(layout))
    output = model(Batch(sequence, {"image": tensors["in/images"][(ids == SLOT).any(1)]}))
    same_rows(model, output, tensors, "out/attention_mask", "out/labels", close, loss)


def same_rows(model, output, tensors, mask, labels, close, loss):
    """Embeddings, labels, logits and loss of a padded batch."""
    real = tensors[mask].bool()
    close(output.sequence.embeds[real], tensors["out/embeds"][real])
    assert torch.equal(output.sequence.labels, tensors[labels])
    logits = model.head(output.hidden)
    close(logits[real], tensors["out/logits"][real])
    close(loss(logits, tensors[labels]), tensors["out/loss"])


@torch.no_grad()
def test_vila(golden, params, llama, vit, spread, loss):
    """Several images in a row, one, and none; the three folders of a released model."""
    case, tensors = golden("vila_downsample")
    config, close = case["config"], compare(case)
    encoder = vit(SIGLIP, config, layer=-2, act="gelu_tanh")
    parts = [partial(Merge, order="col"), partial(MLP, norm=True)]
    modality = Modality(encoder, Sequential(encoder.width, config["width"], parts=parts))
    model = VLM(llama(config), {"image": modality}).eval()
    load(model.backbone, params(tensors, "param/llm/"))
    load(encoder, params(tensors, "param/vision_tower/"))
    load(modality.connector, params(tensors, "param/mm_projector/"))
    features = modality.encode(tensors["in/images"])
    close(features, tensors["out/vision_tokens"])
    close(modality.connect(features), tensors["out/image_features"])
    layout = modality.layout(*encoder.image.size)
    sequence = spread(tensors["in/input_ids"], tensors["in/attention_mask"], tensors["in/labels"], repeat(layout))
    output = model(Batch(sequence, {"image": tensors["in/images"]}))
    same_rows(model, output, tensors, "out/expanded_mask", "out/expanded_labels", close, loss)


@torch.no_grad()
def test_prismatic(golden, params, llama, vit, spread, loss):
    """Two towers, each with an image prepared for it alone; upstream puts the rows with images first."""
    case, tensors = golden("prismatic")
    config, close = case["config"], compare(case)
    towers = []
    for short, name in (("d", "vit_large_patch14_reg4_dinov2"), ("s", SIGLIP)):
        sizes = {f"v_{size}": config[f"{short}_{size}"] for size in ("width", "layers", "heads")}
        sizes["v_ffn"] = config[f"{short}_mlp"] * sizes["v_width"]
        towers.append(vit(name, {**config, **sizes}, layer=-2))
    encoder = FusedEncoder(towers=towers)
    connector = MLP(encoder.width, config["width"], depth=3, hidden=(4 * encoder.width, None))
    model = VLM(llama(config), {"image": Modality(encoder, connector)}).eval()
    weights = {name: value for name, value in params(tensors).items() if not name.startswith("alone_")}
    assert load(model, weights).format == "prismatic"

    features = encoder.join([tensors["in/pixel_dino"], tensors["in/pixel_siglip"]])
    close(features, tensors["out/fused_patches"])
    close(connector(features), tensors["out/fused_projected"])
    shown = tensors["in/multimodal_indices"].tolist()
    rows = [*shown, *(row for row in range(len(features)) if row not in shown)]
    ids, mask, labels = (tensors[f"in/{name}"][rows] for name in ("ids", "mask", "labels"))
    # The patches stand right behind the token that begins the row.
    signature = ids.new_tensor([[SLOT if row in shown else 0] for row in rows])
    ids, mask, labels = (
        torch.cat([whole[:, :1], new, whole[:, 1:]], dim=1)
        for whole, new in ((ids, signature), (mask, (signature == SLOT).to(mask)), (labels, signature))
    )
    sequence = spread(ids, mask, labels, repeat(encoder.layout(*encoder.image.size)))
    output = model(Batch(sequence, features={"image": features[shown]}))
    same_rows(model, output, tensors, "out/fused_mask", "out/fused_labels", close, loss)


@pytest.fixture
def minigpt(golden, params, llama, tmp_path):
    """The model of MiniGPT-v2 with its LoRA, and the features of its images behind `ln_vision`."""
    case, tensors = golden("minigptv2")
    config, weights = case["config"], params(tensors)
    # Strips of four patches follow each other: how many of them a row of the image has changes nothing.
    stand_in = Patchify(patch=1, size=(config["n_tok"] // 4, 4))
    connector = Sequential(config["v_width"], config["width"], parts=[partial(Merge, rows=1, cols=4), Linear])
    model = VLM(llama(config), {"image": Modality(stand_in, connector)}).eval()
    load(connector, {name: value for name, value in weights.items() if name.startswith("llama_proj.")})
    language = {name: value.contiguous() for name, value in params(tensors, "param/llama_model.").items()}
    save_file(language, str(tmp_path / "adapter_model.safetensors"))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": config["lora_alpha"]}))
    load(model.backbone, tmp_path)
    features = tensors["in/image_feats_raw"]
    norm = weights["ln_vision.weight"], weights["ln_vision.bias"]
    return case, tensors, model, F.layer_norm(features, norm[0].shape, *norm)[:, 1:]


@torch.no_grad()
def test_minigpt_v2(minigpt, spread, loss):
    """The pieces of a prompt are those of the case; visual tokens stand between them, the answer is learnt."""
    case, tensors, model, features = minigpt
    close = compare(case)
    layout = model.modalities["image"].layout(*model.modalities["image"].image.size)
    rows = []
    for sample in case["samples"].values():
        context = [1, *sample["piece_1_ids"], SLOT, *sample["piece_2_ids"]]
        rows.append(([*context, *sample["answer_ids"]], [-100] * len(context) + sample["answer_ids"]))
    longest = max(len(ids) for ids, _ in rows)
    ids, labels = (torch.tensor([one[i] + [0] * (longest - len(one[i])) for one in rows]) for i in (0, 1))
    real = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one, _ in rows])
    sequence = spread(ids, real, labels, repeat(layout))
    output = model(Batch(sequence, features={"image": features}))
    # Upstream pads prompts and answers apart, so its rows can be longer than ours.
    mask, logits = tensors["out/attention_mask"].bool(), model.head(output.hidden)
    assert mask.sum(1).tolist() == [len(one) - 1 + layout.tokens for one, _ in rows]
    length = logits.shape[1]
    here = mask[:, :length]
    close(output.sequence.embeds[here], tensors["out/inputs_embeds"][:, :length][here])
    assert torch.equal(sequence.labels, tensors["out/targets"][:, :length])
    close(logits[here], tensors["out/logits"][:, :length][here])
    close(loss(logits, sequence.labels), tensors["out/loss"])


@torch.no_grad()
def test_minigpt_v2_in_several_turns_and_asked(minigpt, loss):
    case, tensors, model, _ = minigpt
    embeds, labels = tensors["out/dialog_inputs_embeds"], tensors["out/dialog_targets"]
    hidden, _ = model.run_backbone(Sequence(labels.clamp(min=0), embeds=embeds))
    compare(case)(loss(model.head(hidden), labels), tensors["out/dialog_loss"])
    model.embed = lambda batch: batch.sequence
    embeds = tensors["out/chat_context_embeds"]
    asked = Sequence(torch.zeros(embeds.shape[:2], dtype=torch.long), embeds=embeds)
    assert (
        generate(model, Batch(asked), max_new_tokens=case["config"]["new"]) == tensors["out/chat_greedy_ids"].tolist()
    )
