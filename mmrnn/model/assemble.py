"""Wiring of a model from a configuration: the only module that wires parts."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from torch import nn

from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.skip_init import SkipInit, meta_parameters
from mmrnn.config.tree import modalities, weight_sources
from mmrnn.model.vlm import VLM, Modality
from mmrnn.weights.pretrained import read_pretrained

Tree = Mapping[str, Any]

INHERIT = "weights.inherit"
"""Path of the checkpoint of which a model takes over what fits."""


def assemble(tree: Tree, trusted: Collection[str], *, meta_backbone: bool = False) -> VLM:
    """Instantiate the parts, each with the sizes of its neighbours, and wire them.

    Args:
        tree: a checked configuration as plain data.
        trusted: further packages whose classes the cards may name.
        meta_backbone: leave the parameters of the backbone on the meta device.

    Raises:
        ConfigError: a part that refuses its knobs.
    """

    def part(path: str, card: Any, *wired: Any) -> Any:
        with SkipInit():
            return prefix_errors(path, lambda: instantiate(card, *wired, trusted=trusted))

    if meta_backbone:
        with meta_parameters():
            backbone = part("backbone", tree["backbone"])
    else:
        backbone = part("backbone", tree["backbone"])
    parts = {}
    for name, path, modality in modalities(tree):
        encoder = part(f"{path}encoder", modality["encoder"])
        parts[name] = Modality(encoder, part(f"{path}connector", modality["connector"], encoder.width, backbone.width))
        # A connector that cannot map the encoder's layout raises here instead of at the first batch.
        prefix_errors(f"{path}connector", lambda built=parts[name]: built.layout(*built.image.size))
    hook = tree.get("hook")
    model = VLM(
        backbone,
        parts,
        part("scan", tree.get("scan")),
        position=part("position", tree.get("position")),
        mask=part("mask", tree.get("mask")),
        hook=part("hook", hook, backbone, parts["image"].connector.width) if hook else None,
    )
    model.config = tree
    return model


def prefix_errors(path: str, call: Callable[[], Any]) -> Any:
    """Call, and turn a `ValueError` into a `ConfigError` that begins with the path of the part."""
    try:
        return call()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def named_weights(tree: Tree) -> dict[str, Any]:
    """Return the files that `weights` names, by the path of the part."""
    return {path: source for path, source in weight_sources(tree.get("weights")) if source is not None}


def loads_backbone(tree: Tree) -> bool:
    """Return True where files bring the weights of the backbone."""
    return bool(
        {"model", "backbone"} & set(named_weights(tree)) or (tree.get("weights") and tree["backbone"].get("pretrained"))
    )


def weight_plan(model: VLM) -> Iterator[tuple[str, nn.Module, Any]]:
    """Yield what is to be loaded into an assembled model, in order: a path for errors, the module, and its source.

    These are the published weights that cards ask for, unless `weights` names others, what the model inherits
    (`INHERIT`), and the files that `weights` names.

    Raises:
        ConnectionError: published weights are asked for, and their hub cannot be reached.
    """
    weights, named = model.config.get("weights") or {}, named_weights(model.config)
    for name, modality in model.modalities.items() if weights else ():
        path = "encoder" if name == "image" else f"modalities.{name}.encoder"
        if not {path, "model"} & set(named):
            yield from ((path, encoder, tensors) for encoder, tensors in read_pretrained(modality.encoder))
    inherited = named.pop("inherit", None)
    published = model.backbone.pretrained
    if weights and published and not {"backbone", "model"} & set(named):
        yield "weights.backbone", model.backbone, published
    if inherited is not None:
        yield INHERIT, model, inherited
    for path, source in sorted(named.items(), key=lambda item: item[0] == "hook"):
        place = path if path.startswith(("backbone", "modalities.", "hook")) else f"modalities.image.{path}"
        yield f"weights.{path}", model if path == "model" else model.get_submodule(place), source
