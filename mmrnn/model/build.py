"""A model of a configuration: the only place that wires parts."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import make
from mmrnn.config.tree import modalities, plain, sources
from mmrnn.config.validate import check
from mmrnn.model.vlm import VLM, Modality
from mmrnn.weights import load
from mmrnn.weights.pretrained import fetch

if TYPE_CHECKING:
    from omegaconf import DictConfig


def build(cfg: "DictConfig | Mapping[str, Any]", *, trusted: Collection[str] = (), filled: bool = False) -> VLM:
    """Make the parts, let each ask its neighbour for its size, put them together, read the weights.

    Published weights that a card asks for (`pretrained`) are fetched, unless `weights` names others;
    `weights: {}` builds everything as it is initialised, and under `torch.device("meta")` nothing is read.
    A backbone whose weights are read is built without memory and takes those of the file.

    Args:
        filled: the caller fills the whole model from a file: the backbone stays without memory until then.

    Raises:
        ConfigError: what `check` finds, or what a part says of its knobs or its weights.
        ConnectionError: published weights are asked for, and their hub cannot be reached.
    """
    check(cfg, trusted=trusted)
    from mmrnn.model.vlm import VLM

    tree, parts = plain(cfg), {}

    def part(path: str, card: Any, *wired: Any) -> Any:
        try:
            return make(card, *wired, trusted=trusted)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error

    weights = tree.get("weights") or {}
    named = {path for path, source in sources(weights) if source is not None}
    given = filled or bool({"model", "backbone"} & named or (weights and tree["backbone"].get("pretrained")))
    backbone = _empty(lambda: part("backbone", tree["backbone"])) if given else part("backbone", tree["backbone"])
    for name, path, modality in modalities(tree):
        encoder = part(f"{path}encoder", modality["encoder"])
        parts[name] = Modality(encoder, part(f"{path}connector", modality["connector"], encoder.width, backbone.width))
        try:
            parts[name].layout(*parts[name].image.size)
        except ValueError as error:
            # A connector says here, and not at the first batch, that it has no place for such tokens.
            raise ConfigError(f"{path}connector: {error}") from error
    hook, adapter = tree.get("hook"), tree.get("adapter")
    model = VLM(
        backbone,
        parts,
        part("scan", tree.get("scan")),
        position=part("position", tree.get("position")),
        mask=part("mask", tree.get("mask")),
        hook=part("hook", hook, backbone, parts["image"].connector.width) if hook else None,
    )
    model.config = tree
    _load(model, weights)
    if adapter:
        try:
            part("adapter", adapter)(model)
        except ValueError as error:
            raise ConfigError(f"adapter: {error}") from error
    return model


def _empty(make: Callable[[], Any]) -> Any:
    """A part without memory for its parameters, unless it keeps tensors that no file will bring."""
    with torch.device("meta"):
        module = make()
    brought = set(module.state_dict())
    return module if {name for name, _ in module.named_buffers()} <= brought else make()


def _load(model: VLM, weights: Mapping[str, Any]) -> None:

    if torch.get_default_device().type == "meta":
        return
    named = {path: source for path, source in sources(weights) if source is not None}
    added = len((model.config.get("tokenizer") or {}).get("added_tokens") or ())
    for name, modality in model.modalities.items() if weights else ():
        path = "encoder" if name == "image" else f"modalities.{name}.encoder"
        if not {path, "model"} & set(named):
            fetch(modality.encoder)
    published = model.backbone.pretrained
    if weights and published and not {"backbone", "model"} & set(named):
        named["backbone"] = published
    for path, source in sorted(named.items(), key=lambda one: one[0] == "hook"):
        place = path if path.startswith(("backbone", "modalities.", "hook")) else f"modalities.image.{path}"
        try:
            load(model if path == "model" else model.get_submodule(place), source, new_words=added)
        except ValueError as error:
            raise ConfigError(f"weights.{path}: {error}") from error
    if model.hook is not None and not {"hook", "model"} & set(named):
        model.hook.init_from(model.backbone)
