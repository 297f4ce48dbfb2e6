"""Fuyu: projection of patches and the row separator, which is a row of the language model's embedding."""

from torch import nn

from mmrnn.connectors import RowSeparators
from mmrnn.weights.format import Format, Tensors
from mmrnn.weights.formats.ignored import LANGUAGE

NEWLINE = 71019
"""Id of `|NEWLINE|` in the released vocabulary."""

TABLE = "table>"


def adapt(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Take the row separator from the embedding of the language model."""
    table = tensors.pop(TABLE, None)
    if table is not None and len(table) > NEWLINE:
        tensors["newline"] = table[NEWLINE]
        notes.append(f"the row separator was taken from the embedding of the language model (id {NEWLINE})")
    return tensors


def newline(name: str, prefix: str, model: str) -> Format:
    """Format of projection and separator; `model` is the prefix of the language model."""
    return Format(
        name,
        RowSeparators,
        signature=(f"{prefix}vision_embed_tokens.weight",),
        names={
            f"{prefix}vision_embed_tokens.*": "part.proj.*",
            f"{model}embed_tokens.weight": TABLE,
            "newline": "newline",
        },
        ignored=dict.fromkeys(
            (f"{model}layers.*", f"{model}final_layernorm.*", "language_model.lm_head.*", "lm_head.*"),
            LANGUAGE,
        ),
        adapt=adapt,
    )


FORMATS = (
    newline("fuyu_hf", "", "language_model.model."),
    newline("fuyu_hf5", "model.", "model.language_model."),
)
