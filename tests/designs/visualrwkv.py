"""The models of VisualRWKV's golden cases, and their inputs in our layout."""

from unittest.mock import patch

import torch

from mmrnn import weights
from mmrnn.backbones import RWKV5, RWKV6
from mmrnn.connectors import Linear, Pool, Sequential
from mmrnn.encoders import TimmViT
from mmrnn.inference.generate import stream
from mmrnn.model.vlm import VLM, Modality
from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Layout, Sequence


def build(case: dict, params: dict, cls: str, order=None, pool=None) -> VLM:
    """The model of a case, loaded from its checkpoint under the original names."""
    config, vision = case["config"], case["config"]["vision"]
    encoder = TimmViT(
        name="vit_base_patch32_clip_quickgelu_224",
        size=vision["image_size"],
        layer=-1,
        norm=False,
        cls=cls,
        resize="crop",
        depth=vision["num_hidden_layers"],
        arch={
            "patch_size": vision["patch_size"],
            "embed_dim": vision["hidden_size"],
            "num_heads": vision["num_attention_heads"],
            "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
        },
    )
    sizes = {
        "vocab": config["vocab_size"],
        "width": config["n_embd"],
        "depth": config["n_layer"],
        "head_size": config["head_size"],
        "ffn": config["dim_ffn"],
    }
    if "mix_lora_rank" in config:
        backbone = RWKV6(**sizes, mix_rank=config["mix_lora_rank"], decay_rank=config["decay_lora_rank"])
    else:
        backbone = RWKV5(**sizes)
    grid = config["grid_size"]
    parts = [pool or (lambda width, out: Pool(width, out, grid=grid)), lambda i, o: Linear(i, o, bias=False)]
    model = VLM(backbone, {"image": Modality(encoder, Sequential(encoder.width, backbone.width, parts=parts))}, order)
    weights.load(model, params)
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def spliced(case: dict, tensors: dict, model: VLM, version: str) -> tuple[Batch, list[list[int]]]:
    """The batch of a case in our own layout, and for every row the place of each position in the upstream row.

    Upstream (v5.1, v6.0) pads rows on the left up to the largest image position and gives text-only samples zero
    vectors; ours has neither, so only the positions that both have can be compared.
    """
    modality = model.modalities["image"]
    layout = modality.layout(*modality.image.size)
    ids, labels = tensors["in/input_ids"], tensors["in/labels"]
    first = max((row == SLOT).nonzero()[0].item() if (row == SLOT).any() else 0 for row in ids)
    rows, row_labels, blocks, places, images = [], [], [], [], []
    for index, sample in enumerate(case["config"]["samples"]):
        length = sample["real_length"]
        row, label = ids[index, :length].tolist(), labels[index, :length].tolist()
        at = sample["image_index"]
        offset = 0 if version == "v50" else first - (at or 0)
        if at is None:
            shift = 0 if version == "v50" else first + layout.tokens
            place = [shift + i for i in range(length)]
        else:
            row[at : at + 1] = [SLOT] * layout.tokens
            label[at : at + 1] = [IGNORE] * layout.tokens
            blocks.append(ImageSpan(index, at, layout))
            images.append(tensors["in/images"][index, 0])
            place = [offset + i for i in range(len(row))]
        rows.append(torch.tensor(row))
        row_labels.append(torch.tensor(label))
        places.append(place)
    pad = torch.nn.utils.rnn.pad_sequence
    sequence = Sequence(
        pad(rows, batch_first=True), tuple(blocks), labels=pad(row_labels, batch_first=True, padding_value=IGNORE)
    )
    return Batch(sequence, {"image": torch.stack(images)}), places


def upstream(tensors: dict, prefix: str, rows: int, cols: int, cls: int) -> Sequence:
    """The very sequence that upstream's language model read, its left padding and zero vectors included."""
    embeds, labels = tensors[f"{prefix}embeds"], tensors[f"{prefix}labels"]
    start, stop = tensors[f"{prefix}img_span"].tolist()
    assert stop - start == rows * cols
    blocks = tuple(ImageSpan(row, start, Layout(rows=rows, cols=cols, suffix=cls)) for row in range(len(embeds)))
    return Sequence(labels.clamp(min=0), blocks, embeds=embeds, labels=labels)


def side(case: dict) -> int:
    return case["config"]["vision"]["image_size"] // case["config"]["vision"]["patch_size"]


def close(ours, theirs, atol):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def prompt(tensors: dict, model: VLM) -> Batch:
    modality = model.modalities["image"]
    layout = modality.layout(*modality.image.size)
    ids = tensors["in/gen_input_ids"][0].tolist()
    at = ids.index(SLOT)
    ids[at : at + 1] = [SLOT] * layout.tokens
    return Batch(Sequence(torch.tensor([ids]), (ImageSpan(0, at, layout),)), {"image": tensors["in/gen_images"][:, 0]})


def replies(model: VLM, batch: Batch, limit: int) -> tuple[list[int], torch.Tensor]:
    """Greedy tokens over the state, and the logits of every step."""
    logits, head = [], model.backbone.head

    def recording(hidden):
        logits.append(head(hidden))
        return logits[-1]

    with patch.object(model.backbone, "head", recording):
        tokens = [step[0].id for step in stream(model, batch, max_new_tokens=limit)]
    return tokens, torch.cat(logits)
