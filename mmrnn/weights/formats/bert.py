"""BERT, from which the Q-Formers of BLIP-2's first stage begin (arXiv 2301.12597, section 3.1)."""

import torch
from torch import Tensor, nn

from mmrnn.connectors import QFormer, TextQFormer
from mmrnn.weights.format import Format, Tensors

NO_TYPES = "a Q-Former has no token types"
HEADS = "belongs to heads of BERT that a Q-Former has not"
COMPUTED = "it is computed"
TEXT = "belongs to the text branch"

FRESH = ("queries", "layers.{}.cross.*", "head.*")
"""Names of what BERT has not: queries, cross-attention and the projection to a language model."""

NORMS = {"weight": ("weight", "bias"), "gamma": ("gamma", "beta")}
"""Names of the factor and the summand of a norm: in new files, and in those of 2018."""


def _names(prefix: str, factor: str, summand: str) -> dict[str, str]:
    """Names of embeddings' norm and layers; the feed-forward becomes that of the queries."""
    layer = f"{prefix}encoder.layer.{{}}"
    names = {}
    for part in ("query", "key", "value"):
        names[f"{layer}.attention.self.{part}.*"] = f"layers.{{}}.attention.{part}.*"
    names[f"{layer}.attention.output.dense.*"] = "layers.{}.attention.output.*"
    names[f"{layer}.intermediate.dense.*"] = "layers.{}.ffn.up.*"
    names[f"{layer}.output.dense.*"] = "layers.{}.ffn.down.*"
    for theirs, ours in {
        f"{prefix}embeddings.LayerNorm": "norm",
        f"{layer}.attention.output.LayerNorm": "layers.{}.attention.norm",
        f"{layer}.output.LayerNorm": "layers.{}.ffn.norm",
    }.items():
        names |= {f"{theirs}.{factor}": f"{ours}.weight", f"{theirs}.{summand}": f"{ours}.bias"}
    return names


def _text_names(prefix: str, factor: str, summand: str) -> dict[str, str]:
    """Names of embeddings and of the head that predicts words."""
    transform = "cls.predictions.transform"
    return {
        f"{prefix}embeddings.word_embeddings.weight": "token_embedding.weight",
        f"{prefix}embeddings.position_embeddings.weight": "position_embedding.weight",
        f"{transform}.dense.*": "lm_transform.0.*",
        f"{transform}.LayerNorm.{factor}": "lm_transform.2.weight",
        f"{transform}.LayerNorm.{summand}": "lm_transform.2.bias",
        "cls.predictions.bias": "lm_bias",
    }


def _begin_text(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Copy the feed-forward layers to the text branch, and add a row for the token that begins a generated text."""
    copied = {
        name.replace("layers.", "text_ffns.", 1).replace(".ffn.", ".", 1): value
        for name, value in tensors.items()
        if name.startswith("layers.") and ".ffn." in name
    }
    rows = module.vocab - len(tensors["token_embedding.weight"])
    for name in ("token_embedding.weight", "lm_bias"):
        if rows > 0 and name in tensors:
            tensors[name] = _with_rows(tensors[name], rows)
    if rows > 0:
        notes.append(f"{rows} rows were added to the embedding: they are the mean of the others")
    return tensors | copied


def _with_rows(value: Tensor, rows: int) -> Tensor:
    return torch.cat([value, value.mean(0, keepdim=True).expand(rows, *value.shape[1:])])


def _formats(prefix: str, factor: str, summand: str) -> tuple[Format, Format]:
    common = {
        f"{prefix}embeddings.token_type_embeddings.weight": NO_TYPES,
        f"{prefix}embeddings.position_ids": COMPUTED,
        f"{prefix}pooler.*": HEADS,
        "cls.seq_relationship.*": HEADS,
        "cls.predictions.decoder.*": "tied to the word embedding",
    }
    names, text = _names(prefix, factor, summand), _text_names(prefix, factor, summand)
    signature = (
        f"{prefix}embeddings.LayerNorm.{factor}",
        f"{prefix}embeddings.word_embeddings.weight",
        f"{prefix}encoder.layer.0.attention.self.query.weight",
    )
    ignored = dict.fromkeys(text, TEXT) | common
    return (
        Format("bert", QFormer, signature=signature, names=names, ignored=ignored, fresh=FRESH),
        Format(
            "bert",
            TextQFormer,
            signature=signature,
            names=names | text,
            ignored=common,
            fresh=(*FRESH, "lm_transform.*", "lm_bias"),
            adapt=_begin_text,
        ),
    )


FORMATS: tuple[Format, ...] = tuple(
    one for prefix in ("bert.", "") for norm in NORMS.values() for one in _formats(prefix, *norm)
)
