"""Writing of checkpoints: tensors, the configuration that the model was built from, and a model card.

A checkpoint may hold only some of the tensors (a projector, what a stage has trained). Then its configuration names the
base that the others come from: files in `weights`, or the published weights of a part (`pretrained`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmrnn.checkpoints.config_file import CONFIG, check_base, to_yaml
from mmrnn.checkpoints.model_card import CARD, model_card
from mmrnn.config.tree import plain
from mmrnn.io import shards
from mmrnn.model.parameter_names import matches
from mmrnn.model.vlm import VLM
from mmrnn.weights.convert import EMBEDDER

OBJECTIVE = "objective."
"""Prefix of the parameters of an objective, of which a checkpoint keeps those that embed images and texts."""


def save(
    model: VLM,
    folder: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    only: Sequence[str] | None = None,
    max_shard_size: int = shards.MAX_SHARD_SIZE,
) -> None:
    """Write a checkpoint that `mmrnn.load` opens, replacing a former one in the folder all at once.

    Args:
        config: what the model was built from; None: `model.config`.
        only: parts (`connector`) or globs of names; the base that the configuration names must have all others.
        max_shard_size: bytes of a file of tensors.

    Raises:
        ValueError: there is no configuration, `only` matches no tensor, or the configuration names no base.
    """
    if config is None and model.config is None:
        raise ValueError("a model that was not made by mmrnn.build has no configuration: pass config=...")
    cfg = plain(model.config if config is None else config)
    heads = {f"{EMBEDDER}{name}": value for name, value in _embedder_tensors(model).items()}
    whole = {name: value for name, value in model.state_dict().items() if not name.startswith((OBJECTIVE, EMBEDDER))}
    tensors = whole
    if only is not None:
        tensors = {name: value for name, value in whole.items() if matches(name, tuple(only))}
        if not tensors:
            raise ValueError(f"only={list(only)} matches no tensor of the model; name a part (connector) or a glob")
        check_base(cfg, [name for name in whole if name not in tensors])
    texts = {CONFIG: to_yaml(cfg), CARD: model_card(model, cfg, absent=len(whole) - len(tensors))}
    shards.write(Path(folder), tensors | heads, texts, max_shard_size)


def _embedder_tensors(model: VLM) -> Mapping[str, Tensor]:
    """Tensors of what embeds images and texts; none where nothing does."""
    embedder = model.find_embedder()
    return embedder.state_dict() if isinstance(embedder, nn.Module) else {}
