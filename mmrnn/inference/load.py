"""Assistants of checkpoints."""

from collections.abc import Collection
from pathlib import Path

from mmrnn.checkpoints.load import load_model
from mmrnn.config.instantiate import instantiate
from mmrnn.inference.assistant import Assistant


def load(folder: str | Path, *, trusted: Collection[str] = ()) -> Assistant:
    """The model in a folder that `save` or a run has left, or in such a repository of the hub; ready to be asked.

    The files are not trusted: classes outside mmrnn are built only when their package is named.

    Args:
        folder: a path, or `owner/name`.
        trusted: packages beside mmrnn whose classes the configuration may name.

    Raises:
        ConfigError: the folder holds no model, or its configuration does not fit.
        WeightsError: the tensors do not fit the configuration.
        ConnectionError: the hub cannot be reached.
    """
    model, cfg = load_model(folder, trusted=trusted)
    tokenizer, prompt = instantiate(cfg["tokenizer"], trusted=trusted), instantiate(cfg["prompt"], trusted=trusted)
    return Assistant(model.eval(), tokenizer, prompt)
