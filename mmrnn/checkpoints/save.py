"""Writing of checkpoints: tensors, the configuration that the model was built from, and a model card.

A checkpoint may hold only some of the tensors (a projector, what a stage has trained). Then its configuration names the
base that the others come from: files in `weights`, or the published weights of a part (`pretrained`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrnn.checkpoints.config_file import CONFIG, check_base, to_yaml
from mmrnn.checkpoints.model_card import CARD, model_card
from mmrnn.config.tree import plain
from mmrnn.io import shards
from mmrnn.model.objective import saved_tensors
from mmrnn.model.parameter_names import matches
from mmrnn.model.vlm import VLM
from mmrnn.weights.convert import EMBEDDER


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
    whole = saved_tensors(model)
    tensors = whole
    if only is not None:
        patterns = (*only, EMBEDDER.rstrip("."))  # its heads are in no base
        tensors = {name: value for name, value in whole.items() if matches(name, patterns)}
        if not any(matches(name, tuple(only)) for name in tensors):
            raise ValueError(f"only={list(only)} matches no tensor of the model; name a part (connector) or a glob")
        check_base(cfg, [name for name in whole if name not in tensors])
    texts = {CONFIG: to_yaml(cfg), CARD: model_card(model, cfg, absent=len(whole) - len(tensors))}
    shards.write(Path(folder), tensors, texts, max_shard_size)
