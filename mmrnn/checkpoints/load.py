"""Models of checkpoints."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from mmrnn.checkpoints.config_file import CONFIG, MissingBaseError, check_base, read_config
from mmrnn.config.error import ConfigError
from mmrnn.io import hub, shards
from mmrnn.io.tensor_files import read
from mmrnn.model.build import build
from mmrnn.model.vlm import VLM
from mmrnn.weights import WeightsError
from mmrnn.weights import load as load_weights


def load_model(folder: str | Path, *, trusted: Collection[str] = ()) -> tuple[VLM, dict[str, Any]]:
    """The model alone, and its configuration. See `load`."""
    if not Path(folder).exists() and hub.is_id(folder):
        folder = hub.fetch(str(folder), also=[CONFIG])
    folder = Path(folder)
    shards.finish_pending_save(folder)
    cfg, file = read_config(folder), shards.weight_file(folder)
    if cfg is None or file is None:
        raise ConfigError(f"{folder} holds no model ({CONFIG} and {shards.MODEL}); name the folder of a finished run")
    tensors = read(file)
    model = build({**cfg, "weights": {}}, trusted=trusted, meta_backbone=True)
    missing = [name for name in model.state_dict() if name not in tensors]
    try:
        if missing and set(tensors) <= set(model.state_dict()):
            check_base(cfg, missing)
            model = build(cfg, trusted=trusted)
        load_weights(model, tensors, format="mmrnn", strict=not missing)
    except (WeightsError, MissingBaseError) as fault:
        raise WeightsError(f"{file} does not fit {CONFIG} beside it: {fault}") from fault
    model.config = cfg
    return model, cfg
