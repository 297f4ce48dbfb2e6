"""LoRA checkpoints (arXiv 2106.09685) as PEFT writes them: what their matrices add to the weights of a base."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<side>A|B)(?:\.(?P<adapter>\w+))?\.weight")
BASE = ".base_layer."

ALPHAS = {"llama_proj.weight": 16.0}
"""A tensor beside a LoRA -> the lora_alpha that its project has in its code (MiniGPT-v2)."""


def is_lora(names: Mapping[str, Any]) -> bool:
    return any(MATRIX.fullmatch(name) for name in names)


def split(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors that stand for themselves, and what is to be added to those of a base.

    A file that holds the base as well (`base_layer`) comes out merged, with nothing to add.

    Args:
        facts: the `adapter_config.json` beside the file: the matrices do not say their scale.

    Raises:
        ValueError: a matrix without its partner, no scale, or a kind of adapter that is not a plain LoRA.
    """
    known = [alpha for name, alpha in ALPHAS.items() if name in tensors]
    facts = {"lora_alpha": known[0], **facts} if known else facts
    own, pairs = {}, {}
    for name, value in tensors.items():
        if match := MATRIX.fullmatch(name):
            pairs.setdefault(match["module"], {})[match["side"]] = value
        else:
            own[name.replace(BASE, ".")] = value
    if odd := [name for name in own if ".lora_" in name]:
        raise ValueError(f"{odd[0]} belongs to an adapter that is no plain LoRA; merge it where it was made")
    added = {}
    for module, sides in pairs.items():
        if set(sides) != {"A", "B"}:
            raise ValueError(f"{module} has lora_{next(iter(sides))} and lacks the other half")
        down, up = sides["A"].float(), sides["B"].float()
        if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1]:
            raise ValueError(f"{module}: {tuple(up.shape)} and {tuple(down.shape)} are no halves of one matrix")
        added[f"{module}.weight"] = scale(facts, module, len(down)) * (up @ down)
    if not all(name in own for name in added):
        return own, added
    merged = {name: (value.float() + added[name]).to(value.dtype) for name, value in own.items() if name in added}
    return own | merged, {}


def scale(facts: Mapping[str, Any], module: str, rank: int) -> float:
    """lora_alpha / rank, or over its root where the run was rank-stabilised (arXiv 2312.03732)."""
    alpha = facts.get("lora_alpha")
    for pattern, value in (facts.get("alpha_pattern") or {}).items():
        if module.endswith(pattern):
            alpha = value
    if not isinstance(alpha, int | float):
        raise ValueError(
            "LoRA matrices do not say their scale: load the folder that holds adapter_config.json with its lora_alpha"
        )
    if facts.get("use_dora") or facts.get("fan_in_fan_out"):
        raise ValueError("this adapter is no plain LoRA (use_dora, fan_in_fan_out); merge it where it was made")
    return alpha / (rank**0.5 if facts.get("use_rslora") else rank)
