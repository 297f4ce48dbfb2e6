"""Changes of tower tensors beyond renaming: join, reorder, resample, leave out."""

import re
from math import isqrt

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.weights.format import Tensors

BLOCK = re.compile(r"trunk\.(?:blocks|transformer\.resblocks)\.(\d+)\.")
FINAL_NORMS = ("trunk.norm.", "trunk.neck.", "trunk.ln_post.")
POSITION_TABLES = ("trunk.pos_embed", "trunk.positional_embedding")
CLASS_TOKENS = ("trunk.cls_token", "trunk.class_embedding")


def adapt(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Bring the tensors of any tower to the shapes of `module`."""
    target = module.state_dict()
    tensors = _heads_to_thirds(_join_qkv(tensors), module)
    tensors = _split_biases(tensors, target)
    tensors = _final_to_extra_norm(tensors, target, notes)
    tensors = _truncate(tensors, target, notes)
    tensors = _positions(_registers(tensors, target), target, module, notes)
    return _relative_positions(tensors, target, notes)


def _join_qkv(tensors: Tensors) -> Tensors:
    """Join query, key and value, marked `q>`, `k>` and `v>`."""
    joined = {name: value for name, value in tensors.items() if name[:2] not in ("q>", "k>", "v>")}
    for name in tensors:
        if name.startswith("q>") and {f"k>{name[2:]}", f"v>{name[2:]}"} <= tensors.keys():
            joined[name[2:]] = torch.cat([tensors[f"{part}>{name[2:]}"] for part in "qkv"])
    return joined


def _heads_to_thirds(tensors: Tensors, module: nn.Module) -> Tensors:
    """Reorder rows marked `heads>` from (head, qkv) to (qkv, head)."""
    ordered = {}
    for name, value in tensors.items():
        if name.startswith("heads>"):
            heads = module.trunk.blocks[0].attn.num_heads
            value = rearrange(value, "(heads three k) ... -> (three heads k) ...", heads=heads, three=3)
        ordered[name.removeprefix("heads>")] = value
    return ordered


def _split_biases(tensors: Tensors, target: Tensors) -> Tensors:
    """Split the bias for EVA, which has none on its keys: it would shift all scores of a query alike."""
    split = {}
    for name, value in tensors.items():
        stem = name.removesuffix("qkv.bias")
        if name not in target and f"{stem}q_bias" in target:
            split[f"{stem}q_bias"], _, split[f"{stem}v_bias"] = value.chunk(3)
        else:
            split[name] = value
    return split


def _final_to_extra_norm(tensors: Tensors, target: Tensors, notes: list[str]) -> Tensors:
    """Take the final norm as `extra_norm`: transformers has BLIP-2's `ln_vision` there."""
    has_extra_norm = "extra_norm.weight" in target and "trunk.norm.weight" not in target
    if not has_extra_norm or "trunk.norm.weight" not in tensors or "extra_norm.weight" in tensors:
        return tensors
    notes.append("the final norm of the file was taken as extra_norm")
    return {re.sub(r"^trunk\.norm\.", "extra_norm.", name): value for name, value in tensors.items()}


def _truncate(tensors: Tensors, target: Tensors, notes: list[str]) -> Tensors:
    """Drop the blocks after the last one of the module, and a final norm that the module has not."""
    depth = 1 + max((int(match[1]) for name in target if (match := BLOCK.match(name))), default=-1)
    kept, dropped, drops_norm = {}, set(), False
    for name, value in tensors.items():
        match = BLOCK.match(name)
        if match and int(match[1]) >= depth:
            dropped.add(int(match[1]))
        elif name.startswith(FINAL_NORMS) and name not in target:
            drops_norm = True
        else:
            kept[name] = value
    if dropped:
        notes.append(f"the blocks from {min(dropped)} on were left out: the tower ends after block {depth - 1}")
    if drops_norm:
        notes.append("the final norm was left out: the tower ends before it")
    return kept


def _registers(tensors: Tensors, target: Tensors) -> Tensors:
    """Add the position of the class token to the class token, as timm does for DINOv2 with registers."""
    names = {"trunk.reg_token", "trunk.cls_token", "trunk.pos_embed"}
    if not names <= tensors.keys() & target.keys():
        return tensors
    table = tensors["trunk.pos_embed"]
    if _is_square(table.shape[-2]) or not _is_square(table.shape[-2] - 1):
        return tensors
    first, rest = table[..., :1, :], table[..., 1:, :]
    return {**tensors, "trunk.cls_token": tensors["trunk.cls_token"] + first, "trunk.pos_embed": rest}


def _positions(tensors: Tensors, target: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Resample the position table to the grid of the module; drop the class token where the module has none."""
    name = next((name for name in POSITION_TABLES if name in tensors and name in target), None)
    if name is None:
        return tensors
    layout = module.layout(*module.image.size)
    table, shape = tensors[name].flatten(0, -2), target[name].shape
    num_prefix = target[name].flatten(0, -2).shape[0] - layout.rows * layout.cols
    file_prefix = next((count for count in (num_prefix, 1) if _is_square(table.shape[0] - count)), None)
    if file_prefix is None or file_prefix < num_prefix:
        return tensors
    if file_prefix > num_prefix:
        notes.append("the class token was left out, and its position: the tower has none")
        tensors = {key: value for key, value in tensors.items() if key not in CLASS_TOKENS}
    grid = _resample(table[file_prefix:], (layout.rows, layout.cols), module.pos_interp, notes)
    return {**tensors, name: torch.cat((table[:num_prefix], grid)).reshape(shape)}


def _resample(grid: Tensor, size: tuple[int, int], interpolation: str, notes: list[str]) -> Tensor:
    side = isqrt(grid.shape[0])
    if (side, side) == size:
        return grid
    notes.append(
        f"the position table was resampled from {side} x {side} to {size[0]} x {size[1]} ({interpolation} bicubic)"
    )
    image = rearrange(grid.float(), "(rows cols) e -> 1 e rows cols", rows=side)
    image = F.interpolate(image, size=size, mode="bicubic", antialias=interpolation == "antialias", align_corners=False)
    return rearrange(image, "1 e rows cols -> (rows cols) e").to(grid.dtype)


def _is_square(count: int) -> bool:
    return count > 0 and isqrt(count) ** 2 == count


def _relative_positions(tensors: Tensors, target: Tensors, notes: list[str]) -> Tensors:
    """Resample SAM's tables of relative positions, as the original does at another image size."""
    resampled = {}
    for name, table in tensors.items():
        if name.endswith((".rel_pos_h", ".rel_pos_w")) and name in target and len(table) != len(target[name]):
            line = F.interpolate(table.float().T[None], size=len(target[name]), mode="linear")
            resampled[name] = line[0].T.to(table.dtype)
    if resampled:
        notes.append(f"{len(resampled)} tables of relative positions were resampled (linear)")
    return tensors | resampled
