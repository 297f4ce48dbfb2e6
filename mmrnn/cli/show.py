"""`mmrnn show`: parts, parameters, tokens and state of a configuration."""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mmrnn.cli.options import Parser, add_overrides
from mmrnn.config.compose import compose

if TYPE_CHECKING:
    from rich.tree import Tree
    from torch import nn

    from mmrnn.model.vlm import VLM
    from mmrnn.training.stage import Stage
    from mmrnn.types import Backbone, Layout


def parser() -> Parser:
    """Parser of `mmrnn show`."""
    made = Parser(
        "show",
        "[OVERRIDE ...] [OPTION ...]",
        """
Print the parts of a model with their parameters, which of them each stage trains, the tokens of an image after each
part, and the size of the state. No memory is allocated for weights, and none are loaded.
""",
        "  mmrnn show model=visualrwkv6_7b connector=qformer",
    )
    add_overrides(made)
    return made


def main(arguments: Sequence[str]) -> None:
    """Print the tree of parts.

    Raises:
        ConfigError: the configuration does not fit.
    """
    from rich.console import Console

    options = parser().parse(arguments)
    with gc_paused():
        from mmrnn.config.instantiate import instantiate
        from mmrnn.config.tree import plain

        cfg = compose(*options.overrides, dirs=options.dirs)
        tree = plain(cfg)
        model = on_meta(tree, cfg.trusted)
        stages = instantiate(tree.get("stage") or {}, trusted=cfg.trusted)
    Console(highlight=False, soft_wrap=True).print(describe(model, stages))


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause garbage collection, and exempt what was created from later collections.

    Modules and the model live until the process ends; scanning them costs a quarter of the time of `mmrnn show`.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def on_meta(tree: Mapping[str, Any], trusted: Sequence[str] = ()) -> "VLM":
    """Model on the meta device, without weights."""
    import torch

    from mmrnn.model.build import build

    with torch.device("meta"):
        return build({**tree, "weights": {}}, trusted=trusted)


def describe(model: "VLM", stages: "Mapping[str, Stage]") -> "Tree":
    """Terminal tree of the parts of a model."""
    from rich.tree import Tree

    from mmrnn.model.quantize import num_weights

    def part(name: str, path: str) -> str:
        module = model.get_submodule(path)
        learning = trained(module, path, stages)
        return f"[bold]{name}[/]  {type(module).__name__}  {shown(num_weights(module))}, {learning}"

    root = Tree(f"[bold]{shown(num_weights(model))} parameters[/]")
    for name, modality in model.modalities.items():
        height, width = modality.image.size
        before, after = modality.encoder.layout(height, width), modality.layout(height, width)
        form = f"{height} vectors of {width}" if modality.image.resize == "none" else f"{height} x {width} pixels"
        node = root.add(f"[bold]{name}[/]  {form} become {after.tokens + after.cross_attention} tokens")
        path = f"modalities.{name}"
        node.add(f"{part('encoder', f'{path}.encoder')}\n{tokens(before)} of width {modality.encoder.width}")
        node.add(f"{part('connector', f'{path}.connector')}\n{tokens(after)} of width {modality.connector.width}")
    root.add(f"{part('backbone', 'backbone')}\n{state_size(model.backbone)}")
    if model.hook is not None:
        root.add(part("hook", "hook"))
    return root


def trained(module: "nn.Module", path: str, stages: "Mapping[str, Stage]") -> str:
    """Stages that train a part, each with its share of the parameters."""
    every = dict(module.named_parameters(prefix=path))
    notes = []
    for name, stage in stages.items():
        chosen = [parameter for known, parameter in every.items() if stage.trains(known)]
        share = "" if len(chosen) == len(every) else f" ({count(chosen)} of it)"
        notes += [f"{name}{share}"] if chosen else []
    return f"[green]trained in {', '.join(notes)}[/]" if notes else "[dim]frozen[/]"


def tokens(layout: "Layout") -> str:
    """Number of tokens and their layout."""
    if layout.cross_attention:
        return f"{layout.cross_attention} tokens for cross-attention"
    extra = [("before", layout.prefix), ("after", layout.suffix), ("after each row", layout.separators)]
    where = [f"{number} {place}" for place, number in extra if number]
    grid = [f"{layout.rows} x {layout.cols}"] if layout.rows else []
    return f"{layout.tokens} tokens ({', '.join(grid + where)})"


def state_size(backbone: "Backbone") -> str:
    """Size of the backbone state: of a sample, of a token where it grows, or both."""
    from mmrnn.model.state_bytes import state_bytes

    fixed, each = state_bytes(backbone)
    if not fixed and not each:
        return "no state"
    if not each:
        return f"state: {size(fixed)} a sample, at any length"
    constant = f"{size(fixed)} a sample, and " if fixed else ""
    return f"state: {constant}{size(each)} a token and sample"


def count(parameters: Iterable["nn.Parameter"]) -> str:
    """`7.64B (7,635,767,296)`."""
    return shown(sum(parameter.numel() for parameter in parameters))


def shown(number: int) -> str:
    """`7.64B (7,635,767,296)`."""
    return str(number) if number < 1000 else f"{rounded(number)} ({number:,})"


def rounded(number: int) -> str:
    """`7.64B`."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return str(number)


def size(number: int) -> str:
    """`3.1 MB (3,145,728 bytes)`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit} ({number:,} bytes)"
    return f"{number} bytes"
