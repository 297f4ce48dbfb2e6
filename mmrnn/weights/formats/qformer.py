"""Q-Formers of LAVIS and transformers: BLIP-2, with and without text branch and projection, and InstructBLIP."""

from dataclasses import replace

from torch import nn

from mmrnn.connectors import QFormer, Sequential, TextQFormer
from mmrnn.types import Objective
from mmrnn.weights.format import Format, Tensors
from mmrnn.weights.formats import connector_sizes as sizes
from mmrnn.weights.formats.connector_sizes import by_our_names
from mmrnn.weights.formats.connectors import BLIP2_HEADS, OTHER_PARTS
from mmrnn.weights.formats.ignored import COMPUTED, CONNECTOR

TEXT = "belongs to the text branch"
LOSSES = "belongs to the losses of BLIP-2's first stage"
NORM = "belongs to the encoder (its extra_norm)"


def qformer_names(layer: str, inner: str) -> dict[str, str]:
    """Names of the layers of a Q-Former.

    Args:
        layer: prefix of a layer, with {} for its number.
        inner: name of the module that holds query, key and value.
    """
    names = {}
    for theirs, ours in (("attention", "attention"), ("crossattention", "cross")):
        for part in ("query", "key", "value"):
            names[f"{layer}.{theirs}.{inner}.{part}.*"] = f"layers.{{}}.{ours}.{part}.*"
        names[f"{layer}.{theirs}.output.dense.*"] = f"layers.{{}}.{ours}.output.*"
        names[f"{layer}.{theirs}.output.LayerNorm.*"] = f"layers.{{}}.{ours}.norm.*"
    names[f"{layer}.intermediate_query.dense.*"] = "layers.{}.ffn.up.*"
    names[f"{layer}.output_query.dense.*"] = "layers.{}.ffn.down.*"
    names[f"{layer}.output_query.LayerNorm.*"] = "layers.{}.ffn.norm.*"
    return names


def qformer_text(layer: str) -> dict[str, str]:
    """Ignored keys of the feed-forward layers of the text branch."""
    return {f"{layer}.intermediate.*": TEXT, f"{layer}.output.*": TEXT}


def drop_head(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Drop the projection to a language model (BLIP-2's second stage) where the module has none."""
    heads = tensors.keys() & {"head.weight", "head.bias"}
    if heads and heads.isdisjoint(module.state_dict()):
        notes.append("the projection after the Q-Former was left out: the module has none")
        return {name: value for name, value in tensors.items() if not name.startswith("head.")}
    return tensors


def add_batch_axis(tensors: Tensors) -> Tensors:
    """Give the queries an axis of length one for the images, as published."""
    return {name: value[None] if name == "queries" else value for name, value in tensors.items()}


LAVIS_LAYER = "Qformer.bert.encoder.layer.{}"
HF_LAYER = "qformer.encoder.layer.{}"
LAVIS_HEADS, HF_HEAD = BLIP2_HEADS[:3], BLIP2_HEADS[3]

LAVIS = Format(
    "lavis",
    QFormer,
    signature=("query_tokens", "Qformer.bert.embeddings.LayerNorm.weight"),
    names={
        "query_tokens": "queries",
        "Qformer.bert.embeddings.LayerNorm.*": "norm.*",
        **qformer_names(LAVIS_LAYER, "self"),
    },
    ignored={
        "ln_vision.*": NORM,
        "Qformer.bert.embeddings.word_embeddings.weight": TEXT,
        "Qformer.bert.embeddings.position_embeddings.weight": TEXT,
        "Qformer.bert.embeddings.position_ids": TEXT,
        **qformer_text(LAVIS_LAYER),
        "Qformer.cls.*": TEXT,
        "vision_proj.*": LOSSES,
        "text_proj.*": LOSSES,
        "itm_head.*": LOSSES,
        "temp": LOSSES,
        **OTHER_PARTS,
    },
    adapt=drop_head,
    inverse=add_batch_axis,
)

LAVIS_HEADED = tuple(
    replace(
        LAVIS,
        name=f"lavis_{head}",
        signature=(*LAVIS.signature, f"{head}.weight"),
        names={**LAVIS.names, f"{head}.*": "head.*"},
    )
    for head in LAVIS_HEADS
)
"""Formats with the projection to a language model."""

HF = Format(
    "blip2_hf",
    QFormer,
    signature=("query_tokens", "qformer.layernorm.weight"),
    names={
        "query_tokens": "queries",
        "qformer.layernorm.*": "norm.*",
        **qformer_names(HF_LAYER, "attention"),
        f"{HF_HEAD}.*": "head.*",
    },
    ignored={
        "vision_model.post_layernorm.*": NORM,
        "embeddings.*": TEXT,
        **qformer_text(HF_LAYER),
        "vision_projection.*": LOSSES,
        "text_projection.*": LOSSES,
        "itm_head.*": LOSSES,
        **OTHER_PARTS,
    },
    adapt=drop_head,
    inverse=add_batch_axis,
)

INSTRUCT = Format(
    "instructblip_hf",
    QFormer,
    signature=("query_tokens", "qformer.embeddings.layernorm.weight"),
    names={
        "query_tokens": "queries",
        "qformer.embeddings.layernorm.*": "norm.*",
        **qformer_names(HF_LAYER, "attention"),
        f"{HF_HEAD}.*": "head.*",
    },
    ignored={
        "qformer.embeddings.word_embeddings.*": TEXT,
        "qformer.embeddings.position_embeddings.*": TEXT,
        "qformer.embeddings.position_ids": TEXT,
        **{n: why for n, why in HF.ignored.items() if n != "embeddings.*"},
    },
    adapt=drop_head,
    inverse=add_batch_axis,
)

TEXT_NAMES = {
    f"{HF_LAYER}.intermediate.dense.*": "text_ffns.{}.up.*",
    f"{HF_LAYER}.output.dense.*": "text_ffns.{}.down.*",
    f"{HF_LAYER}.output.LayerNorm.*": "text_ffns.{}.norm.*",
    "qformer.embeddings.word_embeddings.weight": "token_embedding.weight",
    "qformer.embeddings.position_embeddings.weight": "position_embedding.weight",
}

INSTRUCT_TEXT = Format(
    "instructblip_hf",
    TextQFormer,
    signature=(*INSTRUCT.signature, "qformer.embeddings.word_embeddings.weight"),
    names={**INSTRUCT.names, **TEXT_NAMES},
    ignored={
        "qformer.embeddings.position_ids": COMPUTED,
        **{name: why for name, why in INSTRUCT.ignored.items() if why != TEXT},
    },
    adapt=drop_head,
)
"""InstructBLIP has no word prediction head: load it with `strict=False`."""

LAVIS_TEXT = Format(
    "lavis",
    TextQFormer,
    signature=(*LAVIS.signature, "Qformer.bert.embeddings.word_embeddings.weight"),
    names={
        **LAVIS.names,
        "Qformer.bert.embeddings.word_embeddings.weight": "token_embedding.weight",
        "Qformer.bert.embeddings.position_embeddings.weight": "position_embedding.weight",
        f"{LAVIS_LAYER}.intermediate.dense.*": "text_ffns.{}.up.*",
        f"{LAVIS_LAYER}.output.dense.*": "text_ffns.{}.down.*",
        f"{LAVIS_LAYER}.output.LayerNorm.*": "text_ffns.{}.norm.*",
        "Qformer.cls.predictions.transform.dense.*": "lm_transform.0.*",
        "Qformer.cls.predictions.transform.LayerNorm.*": "lm_transform.2.*",
        "Qformer.cls.predictions.bias": "lm_bias",
    },
    ignored={
        "ln_vision.*": NORM,
        "Qformer.bert.embeddings.position_ids": COMPUTED,
        "Qformer.cls.predictions.decoder.*": "tied to the word embedding",
        "vision_proj.*": LOSSES,
        "text_proj.*": LOSSES,
        "itm_head.*": LOSSES,
        "temp": LOSSES,
        **OTHER_PARTS,
    },
    adapt=drop_head,
    inverse=add_batch_axis,
)

STAGE1 = Format(
    "lavis",
    Objective,
    signature=("vision_proj.weight", "text_proj.weight", "itm_head.weight", "temp"),
    names={
        "vision_proj.*": "image_proj.*",
        "text_proj.*": "text_proj.*",
        "itm_head.*": "itm_head.*",
        "temp": "temperature",
    },
    ignored={"Qformer.*": CONNECTOR, "query_tokens": CONNECTOR, "ln_vision.*": NORM, **OTHER_PARTS},
)

# A Q-Former followed by a projection: every key without the prefix of a projection belongs to the Q-Former.
CHAINED = (
    *(
        Format(
            one.name,
            Sequential,
            signature=one.signature,
            submodules={**{f"{head}.": "parts.1" for head in BLIP2_HEADS}, "": "parts.0"},
        )
        for one in (LAVIS, HF, INSTRUCT)
    ),
    # Files of BLIP-2 and MiniGPT-4 together: the projection to BLIP-2's language model is left out.
    Format(
        "minigpt4",
        Sequential,
        signature=(*LAVIS.signature, "llama_proj.weight"),
        submodules={"llama_proj.": "parts.1", "": "parts.0"},
    ),
)

FORMATS: tuple[Format, ...] = (
    *(by_our_names(one, sizes.qformer) for one in (LAVIS, *LAVIS_HEADED, HF, INSTRUCT)),
    LAVIS_TEXT,
    INSTRUCT_TEXT,
    STAGE1,
    *CHAINED,
)
