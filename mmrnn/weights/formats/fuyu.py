"""Fuyu: the projection of patches and the vector that ends a row, which is a word of the language model."""

from torch import Tensor, nn

from mmrnn.weights.format import Format

NEWLINE = 71019
"""The id of `|NEWLINE|` in the released vocabulary."""

TABLE = "table>"


def adapt(tensors: dict[str, Tensor], module: nn.Module, notes: list[str]) -> dict[str, Tensor]:
    table = tensors.pop(TABLE, None)
    if table is not None and len(table) > NEWLINE:
        tensors["newline"] = table[NEWLINE]
        notes.append(f"the end of a row was taken from the words of the language model (id {NEWLINE})")
    return tensors


def newline(name: str, prefix: str, model: str) -> Format:
    return Format(
        name,
        "RowSeparators",
        signature=(f"{prefix}vision_embed_tokens.weight",),
        names={
            f"{prefix}vision_embed_tokens.*": "part.proj.*",
            f"{model}embed_tokens.weight": TABLE,
            "newline": "newline",
        },
        ignored=dict.fromkeys(
            (f"{model}layers.*", f"{model}final_layernorm.*", "language_model.lm_head.*", "lm_head.*"),
            "of the language model",
        ),
        adapt=adapt,
    )


FORMATS = (
    newline("fuyu_hf", "", "language_model.model."),
    newline("fuyu_hf5", "model.", "model.language_model."),
)
