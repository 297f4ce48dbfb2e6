"""Qwen3.5 under the names of the hub: language model, tower, merger, and all of them in one file."""

import torch
from torch import nn

from mmrnn.backbones import Hybrid
from mmrnn.connectors import PatchMerger
from mmrnn.encoders import QwenViT
from mmrnn.weights.format import Format, Tensors
from mmrnn.weights.formats.ignored import CONNECTOR, ENCODER, LANGUAGE, VISION
from mmrnn.weights.formats.llama import drop_tied_head

LAYER, BLOCK = "model.layers.{}.", "blocks.{}."

MLP = {f"{LAYER}mlp.{name}_proj.weight": f"{BLOCK}mlp.{name}.weight" for name in ("gate", "up", "down")}

COMMON = {
    "model.embed_tokens.weight": "embedding.weight",
    f"{LAYER}input_layernorm.weight": f"{BLOCK}norm_mixer.weight",
    f"{LAYER}post_attention_layernorm.weight": f"{BLOCK}norm_mlp.weight",
    **MLP,
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
}
"""Names of all but the mixers."""

DELTA, ATTENTION, MIXER = f"{LAYER}linear_attn.", f"{LAYER}self_attn.", f"{BLOCK}mixer."

NAMES = {
    **COMMON,
    f"{DELTA}in_proj_qkv.weight": f"{MIXER}query+key+value.weight",
    f"{DELTA}in_proj_z.weight": f"{MIXER}gate.weight",
    f"{DELTA}in_proj_b.weight": f"{MIXER}rate.weight",
    f"{DELTA}in_proj_a.weight": f"{MIXER}decay.weight",
    f"{DELTA}conv1d.weight": f"{MIXER}conv.weight",
    f"{DELTA}dt_bias": f"{MIXER}decay_bias",
    f"{DELTA}A_log": f"{MIXER}decay_log",
    f"{DELTA}norm.weight": f"{MIXER}norm.weight",
    f"{DELTA}out_proj.weight": f"{MIXER}output@delta.weight",
    f"{ATTENTION}q_proj.weight": f"{MIXER}query|gate.weight",
    f"{ATTENTION}k_proj.weight": f"{MIXER}key.weight",
    f"{ATTENTION}v_proj.weight": f"{MIXER}value.weight",
    f"{ATTENTION}o_proj.weight": f"{MIXER}output@attention.weight",
    f"{ATTENTION}q_norm.weight": f"{MIXER}query_norm.weight",
    f"{ATTENTION}k_norm.weight": f"{MIXER}key_norm.weight",
}
"""`query+key+value` are matrices below each other, `query|gate` rows of a head's queries, then those of its gates;
`output@delta` is what one of the two kinds calls its output."""

PREDICTION = {"mtp.*": "predicts several tokens at once, which no backbone here does"}
LANGUAGE_MODEL = {
    **dict.fromkeys(("model.language_model.*", "lm_head.*", "model.layers.*"), LANGUAGE),
    **dict.fromkeys(("model.embed_tokens.*", "model.norm.*"), LANGUAGE),
    **PREDICTION,
}
JOINED = "query+key+value.weight"
PAIRED = "query|gate.weight"


def adapt(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Split the joined projections, and drop a head that is tied."""
    parts = {}
    for name, value in tensors.items():
        path, joined = name.removesuffix(JOINED), name.removesuffix(PAIRED)
        if path != name:
            mixer = module.get_submodule(path.rstrip("."))
            keys = mixer.key_heads * mixer.key_size
            rows = value.split([keys, keys, len(value) - 2 * keys])
            parts |= {f"{path}{one}.weight": row for one, row in zip(("query", "key", "value"), rows, strict=True)}
        elif joined != name:
            pairs = value.unflatten(0, (-1, 2, module.get_submodule(joined.rstrip(".")).head_size))
            rows = (pairs[:, place].flatten(0, 1) for place in (0, 1))
            parts |= {f"{joined}{one}.weight": row for one, row in zip(("query", "gate"), rows, strict=True)}
        else:
            parts[name.partition("@")[0] + ".weight" if "@" in name else name] = value
    return drop_tied_head(parts, module, notes)


def inverse(tensors: Tensors) -> Tensors:
    """Undo `adapt`; of which kind a mixer is, its convolution or its norm of queries says."""
    joined = dict(tensors)
    for name in tensors:
        path, _, last = name.rpartition("mixer.")
        if last == "conv.weight":
            rows = [joined.pop(f"{path}mixer.{one}.weight") for one in ("query", "key", "value")]
            joined[f"{path}mixer.{JOINED}"] = torch.cat(rows)
            joined[f"{path}mixer.output@delta.weight"] = joined.pop(f"{path}mixer.output.weight")
        elif last == "query_norm.weight":
            size = len(tensors[name])
            pair = [joined.pop(f"{path}mixer.{one}.weight").unflatten(0, (-1, size)) for one in ("query", "gate")]
            joined[f"{path}mixer.{PAIRED}"] = torch.stack(pair, 1).flatten(0, 2)
            joined[f"{path}mixer.output@attention.weight"] = joined.pop(f"{path}mixer.output.weight")
    return joined


def text(name: str, model: str) -> Format:
    """Format of the language model, whose tensors but the head begin with `model`."""
    names = {theirs.replace("model.", model, 1): ours for theirs, ours in NAMES.items()}
    return Format(
        name,
        Hybrid,
        signature=(f"{model}embed_tokens.weight", f"{model}layers.0.linear_attn.in_proj_qkv.weight"),
        names=names,
        ignored={"model.visual.*": VISION, **PREDICTION},
        adapt=adapt,
        inverse=inverse,
    )


TOWER = {
    "patch_embed.proj.*": "patch_embed.*",
    "pos_embed.weight": "positions",
    "blocks.{}.norm1.*": "blocks.{}.norm1.*",
    "blocks.{}.norm2.*": "blocks.{}.norm2.*",
    "blocks.{}.attn.qkv.*": "blocks.{}.qkv.*",
    "blocks.{}.attn.proj.*": "blocks.{}.proj.*",
}
GELU_MLP = {"blocks.{}.mlp.linear_fc1.*": "blocks.{}.up.*", "blocks.{}.mlp.linear_fc2.*": "blocks.{}.down.*"}
SWIGLU = {f"blocks.{{}}.mlp.{name}_proj.*": f"blocks.{{}}.{name}.*" for name in ("gate", "up", "down")}
MERGER = {"merger.norm.*": "norm.*", "merger.linear_fc1.*": "mlp.0.*", "merger.linear_fc2.*": "mlp.2.*"}
MERGER25 = {"merger.ln_q.*": "norm.*", "merger.mlp.0.*": "mlp.0.*", "merger.mlp.2.*": "mlp.2.*"}

VISUAL = ("", "visual.", "model.visual.")
"""Prefixes of tower and merger: alone, in older files, in newer ones."""


def tower(prefix: str, name: str, mlp: dict[str, str], key: str) -> Format:
    """Format of the tower."""
    return Format(
        name,
        QwenViT,
        signature=(f"{prefix}patch_embed.proj.weight", f"{prefix}blocks.0.mlp.{key}.weight"),
        names={f"{prefix}{theirs}": ours for theirs, ours in {**TOWER, **mlp}.items()},
        ignored={f"{prefix}merger.*": CONNECTOR, **LANGUAGE_MODEL},
    )


def merger(prefix: str, name: str, names: dict[str, str], key: str) -> Format:
    """Format of the merger."""
    tower_names = dict.fromkeys((f"{prefix}patch_embed.*", f"{prefix}pos_embed.*", f"{prefix}blocks.*"), ENCODER)
    return Format(
        name,
        PatchMerger,
        signature=(f"{prefix}merger.{key}.weight",),
        names={f"{prefix}{theirs}": ours for theirs, ours in names.items()},
        ignored={**tower_names, **LANGUAGE_MODEL},
    )


WHOLE = Format(
    "qwen35",
    None,
    signature=("model.language_model.layers.0.linear_attn.in_proj_qkv.weight", "model.visual.merger.norm.weight"),
    ignored=PREDICTION,
    submodules={
        "model.visual.merger.": ("modalities.image.connector", "merger."),
        "model.visual.": "modalities.image.encoder",
        "model.language_model.": ("backbone", "model."),
        "lm_head.": ("backbone", "lm_head."),
    },
    preset=("model=qwen35_9b",),
)

FORMATS = (
    text("qwen35", "model.language_model."),
    text("qwen35_text", "model."),
    *(tower(prefix, "qwen35", GELU_MLP, "linear_fc1") for prefix in VISUAL),
    *(tower(prefix, "qwen25_vl", SWIGLU, "gate_proj") for prefix in VISUAL),
    *(merger(prefix, "qwen35", MERGER, "linear_fc1") for prefix in VISUAL),
    *(merger(prefix, "qwen25_vl", MERGER25, "ln_q") for prefix in VISUAL),
    WHOLE,
)
