"""What has to be done to the tensors of a tower before they fit: joined, reordered, resampled, left out."""

import re
from math import isqrt

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

Tensors = dict[str, Tensor]

BLOCK = re.compile(r"trunk\.(?:blocks|transformer\.resblocks)\.(\d+)\.")
FINAL = ("trunk.norm.", "trunk.neck.", "trunk.ln_post.")
TABLES = ("trunk.pos_embed", "trunk.positional_embedding")
CLASS = ("trunk.cls_token", "trunk.class_embedding")


def adapt(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Bring the tensors of any tower into the form that `module` has."""
    wanted = module.state_dict()
    tensors = _by_thirds(_join(tensors), module)
    tensors = _biases(tensors, wanted)
    tensors = _norm_outside(tensors, wanted, notes)
    tensors = _cut(tensors, wanted, notes)
    tensors = _positions(_registers(tensors, wanted), wanted, module, notes)
    return _distances(tensors, wanted, notes)


def _join(tensors: Tensors) -> Tensors:
    """Query, key and value matrices, marked `q>`, `k>`, `v>`, into one."""
    joined = {name: value for name, value in tensors.items() if name[:2] not in ("q>", "k>", "v>")}
    for name in tensors:
        if name.startswith("q>") and {f"k>{name[2:]}", f"v>{name[2:]}"} <= tensors.keys():
            joined[name[2:]] = torch.cat([tensors[f"{part}>{name[2:]}"] for part in "qkv"])
    return joined


def _by_thirds(tensors: Tensors, module: nn.Module) -> Tensors:
    """Rows that lie head by head (`heads>`: q, k and v of the first head, of the second, ...) into thirds."""
    ordered = {}
    for name, value in tensors.items():
        if name.startswith("heads>"):
            heads = module.trunk.blocks[0].attn.num_heads
            value = rearrange(value, "(heads three k) ... -> (three heads k) ...", heads=heads, three=3)
        ordered[name.removeprefix("heads>")] = value
    return ordered


def _biases(tensors: Tensors, wanted: Tensors) -> Tensors:
    """EVA has no bias on its keys. One that a file has moves all scores of a query alike, and changes nothing."""
    split = {}
    for name, value in tensors.items():
        stem = name.removesuffix("qkv.bias")
        if name not in wanted and f"{stem}q_bias" in wanted:
            split[f"{stem}q_bias"], _, split[f"{stem}v_bias"] = value.chunk(3)
        else:
            split[name] = value
    return split


def _norm_outside(tensors: Tensors, wanted: Tensors, notes: list[str]) -> Tensors:
    """Hugging Face keeps `ln_vision` of BLIP-2 where a tower has its final norm."""
    outside = "extra_norm.weight" in wanted and "trunk.norm.weight" not in wanted
    if not outside or "trunk.norm.weight" not in tensors or "extra_norm.weight" in tensors:
        return tensors
    notes.append("the final norm of the file was taken as the norm behind the tower (extra_norm)")
    return {re.sub(r"^trunk\.norm\.", "extra_norm.", name): value for name, value in tensors.items()}


def _cut(tensors: Tensors, wanted: Tensors, notes: list[str]) -> Tensors:
    """Without the blocks behind the one that is read and without a final norm that is not asked for."""
    depth = 1 + max((int(match[1]) for name in wanted if (match := BLOCK.match(name))), default=-1)
    kept, late, final = {}, set(), False
    for name, value in tensors.items():
        match = BLOCK.match(name)
        if match and int(match[1]) >= depth:
            late.add(int(match[1]))
        elif name.startswith(FINAL) and name not in wanted:
            final = True
        else:
            kept[name] = value
    if late:
        notes.append(f"the blocks from {min(late)} on were left out: the tower ends behind block {depth - 1}")
    if final:
        notes.append("the final norm was left out: the tower ends before it")
    return kept


def _registers(tensors: Tensors, wanted: Tensors) -> Tensors:
    """DINOv2 with registers: timm keeps the position of the class token in the class token."""
    names = {"trunk.reg_token", "trunk.cls_token", "trunk.pos_embed"}
    if not names <= tensors.keys() & wanted.keys():
        return tensors
    table = tensors["trunk.pos_embed"]
    if _square(table.shape[-2]) or not _square(table.shape[-2] - 1):
        return tensors
    first, rest = table[..., :1, :], table[..., 1:, :]
    return {**tensors, "trunk.cls_token": tensors["trunk.cls_token"] + first, "trunk.pos_embed": rest}


def _positions(tensors: Tensors, wanted: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Position tables for the grid of the module, and without a class token where it has none."""
    name = next((name for name in TABLES if name in tensors and name in wanted), None)
    if name is None:
        return tensors
    layout = module.layout(*module.image.size)
    target = wanted[name]
    table = tensors[name].flatten(0, -2)
    prefix = target.flatten(0, -2).shape[0] - layout.rows * layout.cols
    found = next((first for first in (prefix, 1) if _square(table.shape[0] - first)), None)
    if found is None or found < prefix:
        return tensors
    if found > prefix:
        notes.append("the class token was left out, and its position: the tower has none")
        tensors = {key: value for key, value in tensors.items() if key not in CLASS}
    grid = _resample(table[found:], (layout.rows, layout.cols), module.pos_interp, notes)
    return {**tensors, name: torch.cat((table[:prefix], grid)).reshape(target.shape)}


def _resample(grid: Tensor, size: tuple[int, int], how: str, notes: list[str]) -> Tensor:
    side = isqrt(grid.shape[0])
    if (side, side) == size:
        return grid
    notes.append(f"the position table was resampled from {side} x {side} to {size[0]} x {size[1]} ({how} bicubic)")
    square = rearrange(grid.float(), "(rows cols) e -> 1 e rows cols", rows=side)
    square = F.interpolate(square, size=size, mode="bicubic", antialias=how == "antialias", align_corners=False)
    return rearrange(square, "1 e rows cols -> (rows cols) e").to(grid.dtype)


def _square(count: int) -> bool:
    return count > 0 and isqrt(count) ** 2 == count


def _distances(tensors: Tensors, wanted: Tensors, notes: list[str]) -> Tensors:
    """SAM's tables of relative positions, resampled as the original does when it runs at another size."""
    changed = {}
    for name, table in tensors.items():
        if name.endswith((".rel_pos_h", ".rel_pos_w")) and name in wanted and len(table) != len(wanted[name]):
            line = F.interpolate(table.float().T[None], size=len(wanted[name]), mode="linear")
            changed[name] = line[0].T.to(table.dtype)
    if changed:
        notes.append(f"{len(changed)} tables of relative positions were resampled (linear)")
    return tensors | changed
