"""Loading of a checkpoint as an assistant."""

from collections.abc import Collection
from pathlib import Path

from mmrnn.checkpoints.load import load_model
from mmrnn.config.instantiate import instantiate
from mmrnn.inference.assistant import Assistant


def load(folder: str | Path, *, trusted: Collection[str] = ()) -> Assistant:
    """Load the model in a folder that `save` or a run has written, or in a repository of the hub, for asking.

    The files are not trusted: classes outside mmrnn are instantiated only if their package is named.

    Args:
        folder: a path, or `owner/name`.
        trusted: further packages whose classes the configuration may name.

    Raises:
        ConfigError: the folder holds no model, or its configuration is invalid.
        WeightsError: the tensors do not fit the configuration.
        ConnectionError: the hub cannot be reached.
    """
    model, cfg = load_model(folder, trusted=trusted)
    tokenizer, prompt = instantiate(cfg["tokenizer"], trusted=trusted), instantiate(cfg["prompt"], trusted=trusted)
    return Assistant(model.eval(), tokenizer, prompt)
