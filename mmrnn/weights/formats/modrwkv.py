"""ModRWKV: its adapters, and whole models."""

from torch import nn

from mmrnn.connectors import ConvMLP
from mmrnn.weights.format import Format, Tensors, unchanged


def drop_unused_norm(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Drop the norm of a file whose adapter does not apply it."""
    used = module.state_dict()
    unused = [name for name in tensors if name.startswith("norm.") and name not in used]
    if unused:
        notes.append("the norm of the adapter was left out: it is in the file, and nothing applies it")
    return {name: value for name, value in tensors.items() if name not in unused}


def adapter(name: str, layers: str) -> Format:
    """Format of an adapter; its projections are an `nn.Sequential` of that name."""
    return Format(
        name,
        ConvMLP,
        signature=(f"{layers}.0.weight", f"{layers}.2.weight"),
        names={f"{layers}.{{}}.*": "layers.{}.*", "pre_norm.*": "norm.*", "conv.*": "conv.*"},
        adapt=drop_unused_norm,
        inverse=unchanged,
    )


FORMATS = (
    adapter("modrwkv", "mlp"),
    adapter("modrwkv_proj", "proj"),
    Format(
        "modrwkv",
        None,
        signature=("llm.emb.weight", "llm.blocks.0.att.r_k"),
        submodules={
            "encoder.model.": ("modalities.image.encoder", "vision_model."),
            "proj.": "modalities.image.connector",
            "llm.": "backbone",
        },
        preset=("model=modrwkv_0b4",),
    ),
)
