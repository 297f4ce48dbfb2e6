"""Q-Formers as LAVIS and Hugging Face publish them: BLIP-2, with and without text and projection, and InstructBLIP."""

from dataclasses import replace

from torch import Tensor, nn

from mmrnn.weights.format import Format
from mmrnn.weights.formats import connector_sizes as sizes
from mmrnn.weights.formats.connector_sizes import by_our_names
from mmrnn.weights.formats.connectors import BLIP2_HEADS, OTHER_PARTS

TEXT = "of the text branch"
LOSSES = "of the losses of BLIP-2's first stage"
NORM = "of the encoder (its extra_norm)"


def qformer_names(layer: str, inner: str) -> dict[str, str]:
    """The layers of a Q-Former.

    Args:
        layer: what stands before every name, with {} for the number.
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
    """The feed-forward of the text branch."""
    return {f"{layer}.intermediate.*": TEXT, f"{layer}.output.*": TEXT}


def drop_head(tensors: dict[str, Tensor], module: nn.Module, notes: list[str]) -> dict[str, Tensor]:
    """Files of BLIP-2's second stage hold the projection to its language model as well."""
    if isinstance(module.head, nn.Identity) and tensors.keys() & {"head.weight", "head.bias"}:
        notes.append("the projection behind the Q-Former was left out, because this Q-Former ends before it")
        return {name: value for name, value in tensors.items() if not name.startswith("head.")}
    return tensors


def queries_of_a_batch(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published queries have an axis for the images, of length one."""
    return {name: value[None] if name == "queries" else value for name, value in tensors.items()}


LAVIS_LAYER = "Qformer.bert.encoder.layer.{}"
HF_LAYER = "qformer.encoder.layer.{}"
LAVIS_HEADS, HF_HEAD = BLIP2_HEADS[:3], BLIP2_HEADS[3]

LAVIS = Format(
    "lavis",
    "QFormer",
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
    inverse=queries_of_a_batch,
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
"""With the projection to a language model behind it."""

HF = Format(
    "blip2_hf",
    "QFormer",
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
    inverse=queries_of_a_batch,
)

INSTRUCT = Format(
    "instructblip_hf",
    "QFormer",
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
    inverse=queries_of_a_batch,
)

TEXT_NAMES = {
    f"{HF_LAYER}.intermediate.dense.*": "text_ffns.{}.up.*",
    f"{HF_LAYER}.output.dense.*": "text_ffns.{}.down.*",
    f"{HF_LAYER}.output.LayerNorm.*": "text_ffns.{}.norm.*",
    "qformer.embeddings.word_embeddings.weight": "words.weight",
    "qformer.embeddings.position_embeddings.weight": "places.weight",
}

INSTRUCT_TEXT = Format(
    "instructblip_hf",
    "TextQFormer",
    signature=(*INSTRUCT.signature, "qformer.embeddings.word_embeddings.weight"),
    names={**INSTRUCT.names, **TEXT_NAMES},
    ignored={
        "qformer.embeddings.position_ids": "counts the positions",
        **{name: why for name, why in INSTRUCT.ignored.items() if why != TEXT},
    },
    adapt=drop_head,
)
"""Without what predicts words: InstructBLIP has none, so that `strict=False` has to be said."""

LAVIS_TEXT = Format(
    "lavis",
    "TextQFormer",
    signature=(*LAVIS.signature, "Qformer.bert.embeddings.word_embeddings.weight"),
    names={
        **LAVIS.names,
        "Qformer.bert.embeddings.word_embeddings.weight": "words.weight",
        "Qformer.bert.embeddings.position_embeddings.weight": "places.weight",
        f"{LAVIS_LAYER}.intermediate.dense.*": "text_ffns.{}.up.*",
        f"{LAVIS_LAYER}.output.dense.*": "text_ffns.{}.down.*",
        f"{LAVIS_LAYER}.output.LayerNorm.*": "text_ffns.{}.norm.*",
        "Qformer.cls.predictions.transform.dense.*": "predict.0.*",
        "Qformer.cls.predictions.transform.LayerNorm.*": "predict.2.*",
        "Qformer.cls.predictions.bias": "predict_bias",
    },
    ignored={
        "ln_vision.*": NORM,
        "Qformer.bert.embeddings.position_ids": "counts the positions",
        "Qformer.cls.predictions.decoder.*": "tied to the table of words, and stored twice",
        "vision_proj.*": LOSSES,
        "text_proj.*": LOSSES,
        "itm_head.*": LOSSES,
        "temp": LOSSES,
        **OTHER_PARTS,
    },
    adapt=drop_head,
    inverse=queries_of_a_batch,
)

STAGE1 = Format(
    "lavis",
    "BLIP2Pretraining",
    signature=("vision_proj.weight", "text_proj.weight", "itm_head.weight", "temp"),
    names={
        "vision_proj.*": "image_proj.*",
        "text_proj.*": "text_proj.*",
        "itm_head.*": "match.*",
        "temp": "temperature",
    },
    ignored={"Qformer.*": "of the connector", "query_tokens": "of the connector", "ln_vision.*": NORM, **OTHER_PARTS},
)

# A chain of a Q-Former and the projection behind it: what has no prefix of a projection is the Q-Former's.
CHAINED = (
    *(
        Format(
            one.name,
            "Sequential",
            signature=one.signature,
            routes={**{f"{head}.": "parts.1" for head in BLIP2_HEADS}, "": "parts.0"},
        )
        for one in (LAVIS, HF, INSTRUCT)
    ),
    # BLIP-2's file and MiniGPT-4's own: the projection to BLIP-2's language model stays out.
    Format(
        "minigpt4",
        "Sequential",
        signature=(*LAVIS.signature, "llama_proj.weight"),
        routes={"llama_proj.": "parts.1", "": "parts.0"},
    ),
)

FORMATS: tuple[Format, ...] = (
    *(by_our_names(one, sizes.qformer) for one in (LAVIS, *LAVIS_HEADED, HF, INSTRUCT)),
    LAVIS_TEXT,
    INSTRUCT_TEXT,
    STAGE1,
    *CHAINED,
)
