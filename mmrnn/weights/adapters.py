"""Adapter checkpoints (LoRA, PiSSA, Bone, DiSHA) of PEFT and RWKV-PEFT, as changes of the weights of a base.

LoRA: arXiv 2106.09685. PiSSA: arXiv 2404.02948. Bone and DiSHA: arXiv 2409.15371.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

MATRIX = re.compile(r"(?P<module>.+)\.(?P<initial>init_)?lora_(?P<side>A|B)(?:(?:\.\w+)?\.weight)?")
BLOCKS = re.compile(r"(?P<module>.+)\.(?:bone|disha)")
"""Name of the blocks of Bone (three axes) or DiSHA (two axes) of a linear layer."""

OTHER = re.compile(
    r"\.(?:lora_\w+|init_lora_\w+|hada_\w+|lokr_\w+|ia3_\w+|oft_\w+|boft_\w+|vera_\w+|miss_\w+|bone_\w+)"
)
"""Names of tensors of other adapters, and of the parts of a LoRA that is not plain (DoRA)."""

BASE_LAYER = ".base_layer."

DEFAULT_ALPHAS = {"llama_proj.weight": 16.0}
"""Tensor that identifies a project -> the lora_alpha that stands in its code alone (MiniGPT-v2)."""


@dataclass(frozen=True)
class Changes:
    """Content of an adapter checkpoint, under the names of its project.

    Attributes:
        plain: tensors that replace those of the base.
        added: name of a weight -> tensor to add to it.
        blocks: name of a weight -> blocks of Bone or DiSHA; see `block_update`.
    """

    plain: dict[str, Tensor]
    added: dict[str, Tensor] = field(default_factory=dict)
    blocks: dict[str, Tensor] = field(default_factory=dict)


def is_adapter(names: Mapping[str, Any]) -> bool:
    """True if some of the names are those of an adapter."""
    return any(MATRIX.fullmatch(name) or BLOCKS.fullmatch(name) or OTHER.search(name) for name in names)


def split(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Changes:
    """Split an adapter checkpoint into tensors and changes of the weights of a base.

    A source that holds the base as well is merged and has no changes.

    Args:
        config: `adapter_config.json`, which has the scale of a LoRA; a PiSSA (with its `init_lora`) needs none.

    Raises:
        ValueError: a matrix without its partner, no scale, or an adapter of another kind.
    """
    known = [alpha for name, alpha in DEFAULT_ALPHAS.items() if name in tensors]
    config = {"lora_alpha": known[0], **config} if known else config
    plain: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    initial: dict[str, dict[str, Tensor]] = {}
    blocks: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if match := MATRIX.fullmatch(name):
            (initial if match["initial"] else pairs).setdefault(match["module"], {})[match["side"]] = value
        elif match := BLOCKS.fullmatch(name):
            blocks[f"{match['module']}.weight"] = value
        else:
            plain[name.replace(BASE_LAYER, ".")] = value
    if unknown := [name for name in plain if OTHER.search(name)]:
        raise ValueError(f"{unknown[0]} belongs to an adapter that is not a plain LoRA; merge it where it was made")
    if without := sorted(initial.keys() - pairs.keys()):
        raise ValueError(f"{without[0]} has the initial matrices of a PiSSA alone; name the trained file as well")
    added = {}
    for module, pair in pairs.items():
        scale = 1.0 if module in initial else _scale(config, module, pair)
        product = scale * _product(module, pair)
        # What a PiSSA has taken from the base at its beginning.
        added[f"{module}.weight"] = product - _product(module, initial[module]) if module in initial else product
    if not all(name in plain for name in (*added, *blocks)):
        return Changes(plain, added, blocks)
    merged = {name: (plain[name].float() + value).to(plain[name].dtype) for name, value in added.items()}
    merged |= {name: plain[name] + block_update(name, plain[name], value) for name, value in blocks.items()}
    return Changes(plain | merged)


def block_update(name: str, weight: Tensor, blocks: Tensor) -> Tensor:
    """Change of a weight of (out, in) by the blocks of an adapter.

    Bone: (in / r, r, r); every r x r block W of the weight is changed by W B + B, B being that of its columns.
    DiSHA: (r, out); its transpose is repeated along the input.

    Raises:
        ValueError: the sizes do not fit.
    """
    out_dim, in_dim = weight.shape
    rank = blocks.shape[-1] if blocks.ndim == 3 else len(blocks)
    w, b = weight.float(), blocks.float()
    if blocks.ndim == 3 and blocks.shape == (in_dim // rank, rank, rank) and not (in_dim % rank or out_dim % rank):
        grid = w.view(out_dim // rank, rank, in_dim // rank, rank).transpose(1, 2)  # rows, columns, r, r
        return (grid @ b + b).transpose(1, 2).reshape(out_dim, in_dim).to(weight.dtype)
    if blocks.ndim == 2 and blocks.shape[1] == out_dim and rank:
        return b.T.repeat(1, -(-in_dim // rank))[:, :in_dim].to(weight.dtype)
    raise ValueError(
        f"{name}: blocks {tuple(blocks.shape)} do not fit a weight {tuple(weight.shape)}; load the base of the adapter"
    )


def _product(module: str, pair: Mapping[str, Tensor]) -> Tensor:
    if set(pair) != {"A", "B"}:
        raise ValueError(f"{module} has lora_{next(iter(pair))} and lacks the other matrix of the pair; fetch it again")
    down, up = pair["A"].float(), pair["B"].float()
    if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1]:
        raise ValueError(
            f"{module}: lora_B {tuple(up.shape)} and lora_A {tuple(down.shape)} cannot be multiplied; fetch it again"
        )
    return up @ down


def _scale(config: Mapping[str, Any], module: str, pair: Mapping[str, Tensor]) -> float:
    """Factor of B A: lora_alpha / rank, or / sqrt(rank) if rank-stabilised (arXiv 2312.03732)."""
    alpha = config.get("lora_alpha")
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if module.endswith(pattern):
            alpha = value
    if not isinstance(alpha, int | float):
        raise ValueError(
            "the scale of the LoRA matrices is unknown: write adapter_config.json with lora_alpha beside the file, or "
            "pass lora_alpha to mmrnn.weights.load (a PiSSA needs its init_pissa.pth as a second file instead)"
        )
    if config.get("use_dora") or config.get("fan_in_fan_out"):
        raise ValueError("this adapter is not a plain LoRA (use_dora, fan_in_fan_out); merge it where it was made")
    rank = len(pair["A"]) if "A" in pair else 1
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)
