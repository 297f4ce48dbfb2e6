"""What the tensors of a connector say of its sizes, from the shapes that its formats have under our own names."""

from collections.abc import Mapping
from typing import Any

from torch import Size

from mmrnn.weights.format import Format, Infer, Sizes

Shapes = Mapping[str, Size]


def by_our_names(form: Format, infer: Infer) -> Format:
    """The format with an `infer` that is given our names instead of theirs."""
    from dataclasses import replace

    def renamed(shapes: Shapes, facts: Mapping[str, Any]) -> Sizes:
        ours = {form.rename(name): shape for name, shape in shapes.items() if form.reason(name) is None}
        return infer({name: shape for name, shape in ours.items() if name is not None}, facts)

    return replace(form, infer=renamed)


def linear(shapes: Shapes, facts: Mapping[str, Any]) -> Sizes:
    out_dim, in_dim = shapes["proj.weight"]
    return Sizes({"bias": "proj.bias" in shapes}, (in_dim, out_dim))


def mlp(shapes: Shapes, facts: Mapping[str, Any]) -> Sizes:
    """The activation is not in the tensors: the card says GELU, as most of them have."""
    places = sorted(int(name.split(".")[1]) for name in shapes if name.startswith("layers.") and ".weight" in name)
    in_dim = shapes["layers.0.weight"][1]
    widths = [shapes[f"layers.{place}.weight"][0] for place in places[:-1]]
    hidden = widths if len(set(widths)) > 1 else next(iter(widths), None)
    knobs = {"depth": len(places), "hidden": hidden, "bias": "layers.0.bias" in shapes, "norm": "norm.weight" in shapes}
    return Sizes(knobs, (in_dim, shapes[f"layers.{places[-1]}.weight"][0]))


def relu_mlp(shapes: Shapes, facts: Mapping[str, Any]) -> Sizes:
    sizes = mlp(shapes, facts)
    return Sizes({**sizes.knobs, "act": "relu"}, sizes.wired)


def gated_mlp(shapes: Shapes, facts: Mapping[str, Any]) -> Sizes:
    return Sizes({}, (shapes["proj.weight"][1], shapes["output.weight"][0]))


def gated_linear(shapes: Shapes, facts: Mapping[str, Any]) -> Sizes:
    return Sizes({}, (shapes["gate.weight"][1], shapes["output.weight"][0]))


def qformer(shapes: Shapes, facts: Mapping[str, Any]) -> Sizes:
    """A head is 64 wide, as in BERT, where nothing beside the tensors says otherwise."""
    queries, width = shapes["queries"][-2:]
    depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("layers."))
    crossed = [int(name.split(".")[1]) for name in shapes if name.endswith(".cross.key.weight")]
    beside = facts.get("qformer_config") or {}
    knobs = {
        "queries": queries,
        "width": width,
        "depth": depth,
        "heads": beside.get("num_attention_heads", max(1, width // 64)),
        "ffn": shapes["layers.0.ffn.up.weight"][0],
        "cross_every": crossed[1] - crossed[0] if len(crossed) > 1 else depth,
    }
    wired = (shapes["layers.0.cross.key.weight"][1],)
    return Sizes(knobs, (*wired, shapes["head.weight"][0]) if "head.weight" in shapes else wired)
