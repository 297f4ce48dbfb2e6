"""Loading of a model from a checkpoint."""

from collections.abc import Collection
from pathlib import Path

from mmrnn.checkpoints.config_file import CONFIG, MissingBaseError, check_base, read_config
from mmrnn.checkpoints.size_check import check_numbers, check_shapes
from mmrnn.config.error import ConfigError
from mmrnn.io import hub, shards
from mmrnn.io.tensor_files import read
from mmrnn.model.build import build
from mmrnn.model.objective import attach_embedder
from mmrnn.model.vlm import VLM
from mmrnn.weights import WeightsError
from mmrnn.weights import load as load_weights
from mmrnn.weights.convert import NATIVE


def load_model(folder: str | Path, *, trusted: Collection[str] = ()) -> VLM:
    """Build the model of a checkpoint and fill it; `mmrnn.load` adds tokenizer and prompt.

    Args:
        folder: a path, or `owner/name` (`hf://owner/name@revision`) on the Hugging Face hub.
        trusted: packages besides mmrnn whose classes the configuration may name.

    Raises:
        ConfigError: there is no checkpoint, or its configuration does not fit.
        WeightsError: the tensors do not fit the configuration.
        FileNotFoundError: the hub has no such repository.
        ConnectionError: the hub cannot be reached, and its cache does not have the repository.
        ImportError: `huggingface_hub` is not installed.
    """
    if not Path(folder).exists() and hub.is_repo_id(folder):
        folder = hub.fetch(str(folder), also=[CONFIG])
    folder = Path(folder)
    cfg, source = read_config(folder), shards.weight_source(folder)
    if cfg is None or source is None:
        raise ConfigError(f"{folder} holds no model ({CONFIG} and {shards.MODEL}); name the folder of a finished run")
    tensors = read(source)
    check_numbers(cfg, tensors)
    check_shapes(cfg, tensors, trusted)
    model = build({**cfg, "weights": {}}, trusted=trusted, meta_backbone=True)
    attach_embedder(model, tensors, trusted)
    names = list(model.state_dict())
    missing = [name for name in names if name not in tensors]
    try:
        if missing and set(tensors) <= set(names):
            check_base(cfg, missing)
            model = build(cfg, trusted=trusted)
            attach_embedder(model, tensors, trusted)
        load_weights(model, tensors, format=NATIVE, strict=not missing)
    except (WeightsError, MissingBaseError) as error:
        raise WeightsError(f"the weights in {folder} do not fit the {CONFIG} beside it: {error}") from error
    model.config = cfg
    return model
