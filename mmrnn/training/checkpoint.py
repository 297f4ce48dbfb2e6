"""A model on disk: its tensors, and the configuration that it was built from."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from mmrnn.assistant import Assistant
from mmrnn.config import ConfigError, build, make, plain
from mmrnn.vlm import VLM
from mmrnn.weights import WeightsError
from mmrnn.weights import load as load_weights
from mmrnn.weights.files import replace_file

CONFIG, MODEL = "config.yaml", "model.safetensors"


def save(folder: str | Path, model: VLM, cfg: Mapping[str, Any]) -> None:
    """Write the model and its configuration; what was there stays until the new files are whole."""
    from safetensors.torch import save_file

    # What an objective learns serves training alone; what has two names (a tied head) is written under both.
    tensors = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
        if not name.startswith("objective.")
    }
    save_config(folder, cfg)
    replace_file(Path(folder) / MODEL, lambda path: save_file(tensors, str(path)))


def save_config(folder: str | Path, cfg: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(plain(cfg), sort_keys=False, allow_unicode=True)
    replace_file(Path(folder) / CONFIG, lambda path: path.write_text(text, encoding="utf-8"))


def read_config(folder: str | Path) -> dict[str, Any] | None:
    """The configuration in a folder, or None where there is none.

    Raises:
        ConfigError: the file is no configuration.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        return None
    try:
        cfg = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path} is no configuration: {str(fault).splitlines()[0]}") from fault
    if not isinstance(cfg, dict):
        raise ConfigError(f"{path} is no configuration")
    return cfg


def load(folder: str | Path, *, trusted: Collection[str] = ()) -> Assistant:
    """The model that a run has left in a folder, ready to be asked.

    The file is not trusted: classes outside mmrnn are built only when their package is named.

    Args:
        trusted: packages beside mmrnn whose classes the configuration may name.

    Raises:
        ConfigError: the folder holds no model, or its configuration does not fit.
        WeightsError: the tensors do not fit the configuration.
    """
    cfg = read_config(folder)
    if cfg is None or not (Path(folder) / MODEL).is_file():
        raise ConfigError(f"{folder} holds no model ({CONFIG} and {MODEL}); name the folder of a finished run")
    model = build({**cfg, "weights": {}}, trusted=trusted)
    try:
        load_weights(model, Path(folder) / MODEL, format="mmrnn")
    except WeightsError as fault:
        raise WeightsError(f"{Path(folder) / MODEL} does not fit {CONFIG} beside it: {fault}") from fault
    tokenizer, prompt = make(cfg["tokenizer"], trusted=trusted), make(cfg["prompt"], trusted=trusted)
    return Assistant(model.eval(), tokenizer, prompt)
