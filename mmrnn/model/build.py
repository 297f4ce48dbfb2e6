"""Building of a model from a configuration."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.config.validate import check
from mmrnn.model.assemble import INHERIT, assemble, loads_backbone, prefix_errors, weight_plan
from mmrnn.model.begin import copies_of_backbone
from mmrnn.model.vlm import VLM
from mmrnn.weights import load
from mmrnn.weights.inherit import read_inheritance

if TYPE_CHECKING:
    from omegaconf import DictConfig


def build(cfg: "DictConfig | Mapping[str, Any]", *, trusted: Collection[str] = (), meta_backbone: bool = False) -> VLM:
    """Instantiate the parts, each with the sizes of its neighbours, wire them, load weights, adapt and quantise.

    Published weights that a card asks for (`pretrained`) are fetched, unless `weights` names others. `weights: {}`
    leaves every part as initialised, and under `torch.device("meta")` nothing is loaded. A backbone whose weights are
    loaded is built without memory and takes the tensors of the file.

    Args:
        cfg: composed by `compose`, or plain dicts and lists.
        trusted: further packages whose classes the cards may name.
        meta_backbone: leave the parameters of the backbone, and codes, on the meta device; the caller loads the whole
            model.

    Raises:
        ConfigError: the faults that `check` finds, or a part that refuses its knobs or its weights.
        ConnectionError: published weights are asked for, and their hub cannot be reached.
    """
    check(cfg, trusted=trusted)
    tree = plain(cfg)
    model = assemble(tree, trusted, meta_backbone=meta_backbone or loads_backbone(tree))
    if torch.get_default_device().type != "meta":
        model.load_notes = tuple(_load_weights(model))
    if adapter := tree.get("adapter"):
        prefix_errors("adapter", lambda: instantiate(adapter, trusted=trusted)(model))
    if card := tree.get("quantize"):
        quantizer = instantiate(card, trusted=trusted)
        is_empty = meta_backbone or torch.get_default_device().type == "meta"
        prefix_errors("quantize", lambda: (quantizer.prepare if is_empty else quantizer)(model))
    return model


def added_tokens(tree: Mapping[str, Any]) -> int:
    """Return the number of tokens that the tokenizer has beyond those of its files."""
    return len((tree.get("tokenizer") or {}).get("added_tokens") or ())


def _load_weights(model: VLM) -> list[str]:
    """Load the files that `weights` names and the published weights of the other parts; return the notes on them."""
    rows, notes = added_tokens(model.config), []
    for path, target, source in weight_plan(model):
        if path == INHERIT:
            found = prefix_errors(path, lambda source=source: read_inheritance(model, source))
            _overwrite(model, found.values)
        else:
            found = prefix_errors(path, lambda target=target, source=source: load(target, source, max_new_rows=rows))
        notes += [f"{path}: {note}" for note in found.notes]
    for copy in copies_of_backbone(model):
        copy()
    return notes


@torch.no_grad()
def _overwrite(model: VLM, values: Mapping[str, Tensor]) -> None:
    target = model.state_dict()
    for name, value in values.items():
        target[name].copy_(value)
