"""Building of a model from a configuration: the only module that wires parts."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.skip_init import SkipInit
from mmrnn.config.tree import modalities, plain, weight_sources
from mmrnn.config.validate import check
from mmrnn.model.vlm import VLM, Modality
from mmrnn.weights import load
from mmrnn.weights.pretrained import load_pretrained

if TYPE_CHECKING:
    from omegaconf import DictConfig


def build(cfg: "DictConfig | Mapping[str, Any]", *, trusted: Collection[str] = (), meta_backbone: bool = False) -> VLM:
    """Instantiate the parts, each with the sizes of its neighbours, wire them, load weights and apply the adapter.

    Published weights that a card asks for (`pretrained`) are fetched, unless `weights` names others. `weights: {}`
    leaves every part as initialised, and under `torch.device("meta")` nothing is loaded. A backbone whose weights are
    loaded is built on the meta device and takes the tensors of the file.

    Args:
        cfg: composed by `compose`, or plain dicts and lists.
        trusted: further packages whose classes the cards may name.
        meta_backbone: leave the backbone on the meta device; the caller loads the whole model.

    Raises:
        ConfigError: the faults that `check` finds, or a part that refuses its knobs or its weights.
        ConnectionError: published weights are asked for, and their hub cannot be reached.
    """
    check(cfg, trusted=trusted)
    tree, parts = plain(cfg), {}

    def part(path: str, card: Any, *wired: Any) -> Any:
        with SkipInit():
            return _prefix_errors(path, lambda: instantiate(card, *wired, trusted=trusted))

    weights = tree.get("weights") or {}
    named = {path for path, source in weight_sources(weights) if source is not None}
    loaded = meta_backbone or bool({"model", "backbone"} & named or (weights and tree["backbone"].get("pretrained")))
    backbone = _on_meta(lambda: part("backbone", tree["backbone"])) if loaded else part("backbone", tree["backbone"])
    for name, path, modality in modalities(tree):
        encoder = part(f"{path}encoder", modality["encoder"])
        parts[name] = Modality(encoder, part(f"{path}connector", modality["connector"], encoder.width, backbone.width))
        # A connector that cannot map the encoder's layout raises here instead of at the first batch.
        _prefix_errors(f"{path}connector", lambda built=parts[name]: built.layout(*built.image.size))
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
    model.load_notes = tuple(_load_weights(model, weights))
    if adapter := tree.get("adapter"):
        _prefix_errors("adapter", lambda: part("adapter", adapter)(model))
    return model


def _prefix_errors(path: str, call: Callable[[], Any]) -> Any:
    """Call, and turn a `ValueError` into a `ConfigError` that begins with the path of the part."""
    try:
        return call()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _on_meta(make: Callable[[], Any]) -> Any:
    """Make a part on the meta device, unless it has buffers that no file brings."""
    with torch.device("meta"):
        module = make()
    saved = set(module.state_dict())
    return module if {name for name, _ in module.named_buffers()} <= saved else make()


def _load_weights(model: VLM, weights: Mapping[str, Any]) -> list[str]:
    """Load the files that `weights` names and the published weights of the other parts; return the notes on them."""
    notes: list[str] = []
    if torch.get_default_device().type == "meta":
        return notes
    named = {path: source for path, source in weight_sources(weights) if source is not None}
    added = len((model.config.get("tokenizer") or {}).get("added_tokens") or ())
    for name, modality in model.modalities.items() if weights else ():
        path = "encoder" if name == "image" else f"modalities.{name}.encoder"
        if not {path, "model"} & set(named) and (report := load_pretrained(modality.encoder)):
            notes += [f"{path}: {note}" for note in report.notes]
    published = model.backbone.pretrained
    if weights and published and not {"backbone", "model"} & set(named):
        named["backbone"] = published
    for path, source in sorted(named.items(), key=lambda item: item[0] == "hook"):
        place = path if path.startswith(("backbone", "modalities.", "hook")) else f"modalities.image.{path}"
        target = model if path == "model" else model.get_submodule(place)
        report = _prefix_errors(
            f"weights.{path}", lambda target=target, source=source: load(target, source, max_new_rows=added)
        )
        notes += [f"weights.{path}: {note}" for note in report.notes]
    if model.hook is not None and not {"hook", "model"} & set(named):
        model.hook.init_from(model.backbone)
    return notes
