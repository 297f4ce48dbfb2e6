"""Checkpoints: the tensors of a model, the configuration that it was built from, and a model card.

A checkpoint may hold a part of the tensors (a projector, what a stage has trained). Then its configuration names the
base that the rest comes from: files in `weights`, or the published weights of a part (`pretrained`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrnn.checkpoints.config_file import CONFIG, check_base, to_yaml
from mmrnn.checkpoints.model_card import CARD, describe
from mmrnn.config.tree import plain
from mmrnn.io import shards
from mmrnn.model.parameter_names import matches
from mmrnn.model.vlm import VLM


def save(
    model: VLM,
    folder: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    only: Sequence[str] | None = None,
    max_shard_size: int = shards.MAX_SHARD_SIZE,
) -> None:
    """Write a checkpoint that `mmrnn.load` opens; until all of it is there, the former one stays.

    Args:
        config: what the model was built from; None: `model.config`.
        only: parts (`connector`) or globs of names; what they leave out must come from the base that the
            configuration names.
        max_shard_size: bytes of one file; what is larger becomes shards.

    Raises:
        ValueError: there is no configuration, `only` fits no tensor, or nothing says where the rest comes from.
    """
    if config is None and model.config is None:
        raise ValueError("a model that mmrnn.build has not made has no configuration to save; save its state_dict")
    cfg = plain(model.config if config is None else config)
    # What an objective learns serves training alone.
    tensors = {name: value for name, value in model.state_dict().items() if not name.startswith("objective.")}
    if only is not None:
        tensors = {name: value for name, value in tensors.items() if matches(name, tuple(only))}
        if not tensors:
            raise ValueError(f"only={list(only)} fits no tensor of the model")
        check_base(cfg, [name for name in model.state_dict() if name not in tensors])
    texts = {CONFIG: to_yaml(cfg), CARD: describe(model, cfg, tensors)}
    shards.write(Path(folder), tensors, texts, max_shard_size)
