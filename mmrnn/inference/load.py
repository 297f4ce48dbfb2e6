"""Loading of an assistant from a checkpoint."""

from collections.abc import Collection
from pathlib import Path

from mmrnn.checkpoints.load import load_model
from mmrnn.config.instantiate import instantiate
from mmrnn.config.validate import check
from mmrnn.inference.assistant import Assistant


def load(folder: str | Path, *, trusted: Collection[str] = ()) -> Assistant:
    """Load a checkpoint as an assistant: model, tokenizer and prompt, ready to answer.

    Classes outside mmrnn are built only where their package is trusted.

    Args:
        folder: a path, or `owner/name` (`hf://owner/name@revision`) on the Hugging Face hub.
        trusted: further packages whose classes the configuration may name.

    Raises:
        ConfigError: there is no checkpoint, or its configuration does not fit.
        WeightsError: the tensors do not fit the configuration.
        FileNotFoundError: the hub has no such repository.
        ConnectionError: the hub cannot be reached, and its cache does not have the repository.
        ImportError: `huggingface_hub` is not installed.
    """
    model = load_model(folder, trusted=trusted)
    check(model.config, trusted=trusted, needs=("tokenizer", "prompt"))
    tokenizer, prompt = (instantiate(model.config[group], trusted=trusted) for group in ("tokenizer", "prompt"))
    return Assistant(model.eval(), tokenizer, prompt)
