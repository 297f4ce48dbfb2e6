"""LoRA checkpoints (arXiv 2106.09685) as PEFT writes them, as additions to the weights of a base."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<side>A|B)(?:\.(?P<adapter>\w+))?\.weight")
BASE_LAYER = ".base_layer."

DEFAULT_ALPHAS = {"llama_proj.weight": 16.0}
"""Tensor that identifies a project -> the lora_alpha that stands in its code alone (MiniGPT-v2)."""


def is_lora(names: Mapping[str, Any]) -> bool:
    """True if some of the names are those of LoRA matrices."""
    return any(MATRIX.fullmatch(name) for name in names)


def split(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a LoRA checkpoint into plain tensors and additions to the weights of a base (scale * B A).

    A file that holds the base as well (`base_layer`) is merged and has no additions.

    Args:
        config: `adapter_config.json`, which has the scale.

    Raises:
        ValueError: a matrix without its partner, no scale, or an adapter that is not a plain LoRA.
    """
    known = [alpha for name, alpha in DEFAULT_ALPHAS.items() if name in tensors]
    config = {"lora_alpha": known[0], **config} if known else config
    plain: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if match := MATRIX.fullmatch(name):
            pairs.setdefault(match["module"], {})[match["side"]] = value
        else:
            plain[name.replace(BASE_LAYER, ".")] = value
    if unknown := [name for name in plain if ".lora_" in name]:
        raise ValueError(f"{unknown[0]} belongs to an adapter that is not a plain LoRA; merge it where it was made")
    added = {f"{module}.weight": _product(module, pair, config) for module, pair in pairs.items()}
    if not all(name in plain for name in added):
        return plain, added
    merged = {name: (value.float() + added[name]).to(value.dtype) for name, value in plain.items() if name in added}
    return plain | merged, {}


def _product(module: str, pair: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor:
    if set(pair) != {"A", "B"}:
        raise ValueError(f"{module} has lora_{next(iter(pair))} and lacks the other matrix of the pair")
    down, up = pair["A"].float(), pair["B"].float()
    if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1]:
        raise ValueError(f"{module}: lora_B {tuple(up.shape)} and lora_A {tuple(down.shape)} cannot be multiplied")
    return _scale(config, module, len(down)) * (up @ down)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Factor of B A: lora_alpha / rank, or / sqrt(rank) if rank-stabilised (arXiv 2312.03732)."""
    alpha = config.get("lora_alpha")
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if module.endswith(pattern):
            alpha = value
    if not isinstance(alpha, int | float):
        raise ValueError(
            "the scale of the LoRA matrices is unknown: load the folder whose adapter_config.json has lora_alpha"
        )
    if config.get("use_dora") or config.get("fan_in_fan_out"):
        raise ValueError("this adapter is not a plain LoRA (use_dora, fan_in_fan_out); merge it where it was made")
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)
