"""Mamba under the names of state-spaces/mamba and of transformers."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmrnn.backbones import Mamba
from mmrnn.weights.format import Format, Inverse, Shapes, Sizes, Tensors
from mmrnn.weights.formats.llama import drop_tied_head

LAYER = "backbone.layers.{}"
COMMON = {
    f"{LAYER}.norm.weight": "blocks.{}.norm.weight",
    f"{LAYER}.mixer.in_proj.weight": "blocks.{}.mixer.input.weight",
    f"{LAYER}.mixer.conv1d.*": "blocks.{}.mixer.conv.*",
    f"{LAYER}.mixer.x_proj.weight": "blocks.{}.mixer.selection.weight",
    f"{LAYER}.mixer.dt_proj.*": "blocks.{}.mixer.step.*",
    f"{LAYER}.mixer.A_log": "blocks.{}.mixer.rate_log",
    f"{LAYER}.mixer.D": "blocks.{}.mixer.skip",
    f"{LAYER}.mixer.out_proj.weight": "blocks.{}.mixer.output.weight",
    "backbone.norm_f.weight": "norm.weight",
    "lm_head.weight": "output.weight",
}
INPUT = re.compile(r"\.mixer\.input\.weight$")


def adapt(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Split the input projection into that of the convolution and that of the gate; drop a tied head."""
    split: Tensors = {}
    for name, value in tensors.items():
        if INPUT.search(name):
            split[name], split[name.replace(".input.", ".gate.")] = value.chunk(2)
        else:
            split[name] = value
    return drop_tied_head(split, module, notes)


def inverse(tensors: Tensors) -> Tensors:
    """Join the input projection of the convolution and that of the gate."""
    joined = {name: value for name, value in tensors.items() if ".mixer.gate." not in name}
    inputs = [name for name in joined if INPUT.search(name)]
    return joined | {name: torch.cat([tensors[name], tensors[name.replace(".input.", ".gate.")]]) for name in inputs}


def inverse_with_head(tensors: Tensors) -> Tensors:
    """Join the input projections, and write a tied head a second time, as state-spaces does."""
    head = tensors.get("output.weight")
    return inverse({**tensors, "output.weight": tensors["embedding.weight"].clone() if head is None else head})


def infer(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes from the shapes; the head is tied unless `config.json` says otherwise."""
    embedding = next(name for name in ("backbone.embedding.weight", "backbone.embeddings.weight") if name in shapes)
    vocab, width = shapes[embedding]
    inner, state_size = shapes["backbone.layers.0.mixer.A_log"]
    knobs = {
        "vocab": vocab,
        "width": width,
        "depth": 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith("backbone.layers.")),
        "expand": inner // width,
        "state_size": state_size,
        "rank": shapes["backbone.layers.0.mixer.dt_proj.weight"][1],
        "kernel": shapes["backbone.layers.0.mixer.conv1d.weight"][2],
        "eps": float(metadata.get("layer_norm_epsilon", 1e-5)),
        "tie_embeddings": bool(metadata.get("tie_word_embeddings", metadata.get("tie_embeddings", True))),
    }
    return Sizes(knobs)


def language(name: str, embedding: str, inverse: Inverse) -> Format:
    """Format of a language model; the projects differ in the name of the embedding."""
    return Format(
        name,
        Mamba,
        signature=(embedding, "backbone.layers.0.mixer.A_log"),
        names={embedding: "embedding.weight", **COMMON},
        adapt=adapt,
        inverse=inverse,
        infer=infer,
    )


FORMATS = (
    language("mamba", "backbone.embedding.weight", inverse_with_head),
    language("mamba_hf", "backbone.embeddings.weight", inverse),
)
