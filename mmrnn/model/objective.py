"""Objective of a model, and the embedder that a trained one leaves behind."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import find_target, instantiate, positional_names
from mmrnn.config.skip_init import meta_parameters
from mmrnn.config.tree import cards
from mmrnn.io.errors import first_line
from mmrnn.model.assemble import prefix_errors
from mmrnn.model.vlm import VLM
from mmrnn.types import Embedder, Objective, fulfils
from mmrnn.weights.convert import EMBEDDER

OBJECTIVE = "objective."
"""Prefix of the parameters of an objective in a model that is being trained."""


def build_objective(card: Mapping[str, Any], model: VLM, trusted: Collection[str] = ()) -> Objective:
    """Build the objective of a card; one with parameters is wired to the model.

    Raises:
        ConfigError: the model lacks what the objective needs.
    """
    wired = [model] if positional_names(find_target(card, trusted)) else []
    return prefix_errors("objective", lambda: instantiate(card, *wired, trusted=trusted))


def attach_embedder(model: VLM, names: Collection[str], trusted: Collection[str] = ()) -> None:
    """Give a model the embedder that a checkpoint has tensors of, without memory for its parameters.

    It is that of the objective that the configuration names; one without parameters needs no tensors.

    Args:
        names: of the tensors of the checkpoint; without those of an embedder the model stays as it is.

    Raises:
        ConfigError: the configuration names no objective that has one, or the model lacks what it needs.
    """
    card = (model.config or {}).get("objective")
    if not any(name.startswith(EMBEDDER) for name in names) and not _has_no_heads(card, trusted):
        return
    if not card:
        raise ConfigError("objective: no card is chosen, and the weights hold the heads of a contrastive objective")
    try:
        with meta_parameters():
            embedder = build_objective(card, model, trusted).embedder()
    except RuntimeError as error:  # of torch, about sizes that no memory holds
        raise ConfigError(f"objective: nothing can be built of its sizes: {first_line(error)}") from error
    if embedder is None:
        raise ConfigError("objective: it embeds nothing, and the weights hold the heads of a contrastive objective")
    model.embedder = embedder


def _has_no_heads(card: Any, trusted: Collection[str]) -> bool:
    """True for an objective with an embedder that has no parameters."""
    targets = [find_target(one, trusted) for _, one in cards(card)]
    return any(fulfils(target, Embedder) and not target.has_heads for target in targets)


def saved_tensors(model: VLM) -> dict[str, Tensor]:
    """Return the tensors of a model that a checkpoint keeps: of an objective, those that embed images and texts."""
    embedder = model.find_embedder()
    heads = embedder.state_dict() if isinstance(embedder, nn.Module) else {}
    own = {name: value for name, value in model.state_dict().items() if not name.startswith((OBJECTIVE, EMBEDDER))}
    return own | {f"{EMBEDDER}{name}": value for name, value in heads.items()}
