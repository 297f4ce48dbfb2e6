"""Sizes of connectors, inferred from the shapes of tensors under our own names."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmrnn.weights.format import Format, Infer, Shapes, Sizes


def by_our_names(form: Format, infer: Infer) -> Format:
    """Give a format an `infer` that takes shapes under our names."""

    def renamed(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
        ours = {form.rename(name): shape for name, shape in shapes.items() if form.reason(name) is None}
        return infer({name: shape for name, shape in ours.items() if name is not None}, metadata)

    return replace(form, infer=renamed)


def linear(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes of a linear projection."""
    out_dim, in_dim = shapes["proj.weight"]
    return Sizes({"bias": "proj.bias" in shapes}, (in_dim, out_dim))


def mlp(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes of an MLP. Its activation is not in the tensors: the default (GELU) is taken."""
    layers = sorted(int(name.split(".")[1]) for name in shapes if name.startswith("layers.") and ".weight" in name)
    in_dim = shapes["layers.0.weight"][1]
    widths = [shapes[f"layers.{layer}.weight"][0] for layer in layers[:-1]]
    hidden = widths if len(set(widths)) > 1 else next(iter(widths), None)
    knobs = {"depth": len(layers), "hidden": hidden, "bias": "layers.0.bias" in shapes, "norm": "norm.weight" in shapes}
    return Sizes(knobs, (in_dim, shapes[f"layers.{layers[-1]}.weight"][0]))


def relu_mlp(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes of an MLP with ReLU."""
    sizes = mlp(shapes, metadata)
    return Sizes({**sizes.knobs, "act": "relu"}, sizes.wired)


def gated_mlp(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Widths of a gated MLP."""
    return Sizes({}, (shapes["proj.weight"][1], shapes["output.weight"][0]))


def gated_linear(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Widths of a gated projection."""
    return Sizes({}, (shapes["gate.weight"][1], shapes["output.weight"][0]))


def qformer(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes of a Q-Former. Heads are 64 wide, as in BERT, unless the metadata has their number."""
    queries, width = shapes["queries"][-2:]
    depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("layers."))
    cross_layers = [int(name.split(".")[1]) for name in shapes if name.endswith(".cross.key.weight")]
    config = metadata.get("qformer_config") or {}
    knobs = {
        "queries": queries,
        "width": width,
        "depth": depth,
        "heads": config.get("num_attention_heads", max(1, width // 64)),
        "ffn": shapes["layers.0.ffn.up.weight"][0],
        "cross_every": cross_layers[1] - cross_layers[0] if len(cross_layers) > 1 else depth,
    }
    in_dim = shapes["layers.0.cross.key.weight"][1]
    return Sizes(knobs, (in_dim, shapes["head.weight"][0]) if "head.weight" in shapes else (in_dim,))
