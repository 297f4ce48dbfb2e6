"""Conversion of published weights to checkpoints, and back: the configuration is inferred from names and shapes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from mmrnn.checkpoints.config_file import read_config, read_yaml
from mmrnn.checkpoints.infer import CONTRACTS, infer_sizes, is_recognised, make_card, recognise
from mmrnn.checkpoints.save import save
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import find_target, instantiate
from mmrnn.config.skip_init import SkipInit
from mmrnn.config.tree import plain
from mmrnn.io import shards
from mmrnn.io.atomic import replace_file
from mmrnn.io.tensor_files import Source, read, read_metadata
from mmrnn.model.build import build
from mmrnn.weights import Format, Report, load
from mmrnn.weights.export import rename
from mmrnn.weights.format import Sizes
from mmrnn.weights.wrapper_prefixes import strip_attribute, strip_wrapper_prefixes

PREFIXES = {"backbone": "backbone.", "connector": "modalities.image.connector."}
"""Part of a whole model -> prefix of its tensors."""


def to_folder(source: Source, folder: Path, overrides: Sequence[str] = (), format: str | None = None) -> Report:
    """Convert published weights to a new folder.

    A part is written as `model.safetensors` and a card `GROUP/NAME.yaml`, a whole model as a checkpoint.

    Args:
        overrides: choices for a whole model that its tensors do not determine, or another preset than the default.

    Raises:
        WeightsError: no format is recognised, or several are, or the tensors do not fit.
        ConfigError: the overrides do not fit, or the folder has files.
        ValueError: the metadata lacks a size that is not in the tensors.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; name a new folder")
    tensors = strip_attribute(strip_wrapper_prefixes(read(source)), is_recognised)
    metadata = read_metadata(source)
    form = recognise(tensors, format)
    if form.infer is None:
        return _convert_model(form, tensors, metadata, folder, overrides)
    if overrides:
        raise ConfigError(f"{overrides[0]}: the sizes of a {form.part_name} are in its tensors; leave it out")
    sizes = infer_sizes(form, tensors, metadata)
    group, card = make_card(form.part, sizes)
    module = _empty(card, sizes, tensors)
    report = load(module, tensors, format=form.name)
    name = re.sub(r"\W+", "_", folder.resolve().name)
    text = f"# {form.part_name} from {_title(source)} (format {form.name})\n" + yaml.safe_dump(card, sort_keys=False)
    replace_file(folder / group / f"{name}.yaml", lambda path: path.write_text(text, encoding="utf-8"))
    shards.write(folder, module.state_dict(), {})
    return report


def to_file(folder: Path, file: Path, format: str, part: str | None = None) -> int:
    """Write the tensors of a folder to a file under the names of another project.

    Args:
        file: `.safetensors`; any other suffix: a pickle of torch.
        part: `backbone` or `connector` of a whole model.

    Returns:
        Number of tensors written.

    Raises:
        WeightsError: the format cannot be written, or does not fit.
        ConfigError: the folder holds no model, or more than one part.
    """
    weights, cfg = shards.weight_source(folder), read_config(folder)
    if weights is None:
        raise ConfigError(f"{folder} holds no model ({shards.MODEL})")
    tensors = read(weights)
    if cfg is not None:
        if part not in PREFIXES:
            raise ConfigError("a whole model is written part by part: say --part backbone or --part connector")
        prefix = PREFIXES[part]
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        card, tensors = _unwrap_chain(cfg[part], tensors)
    else:
        cards = [path for group in CONTRACTS for path in (folder / group).glob("*.yaml")]
        if len(cards) != 1:
            raise ConfigError(f"{folder} holds {len(cards)} cards; it needs one (in {' or '.join(CONTRACTS)}/)")
        card = read_yaml(cards[0])
    renamed = {name: value.contiguous() for name, value in rename(tensors, find_target(card), format).items()}
    write = save_file if file.suffix == ".safetensors" else torch.save
    replace_file(file, lambda path: write(renamed, str(path)))
    return len(renamed)


def _empty(card: Mapping[str, Any], sizes: Sizes, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build a part on the meta device, in the dtype of most of the tensors."""
    dtypes = [value.dtype for value in tensors.values() if value.is_floating_point()]
    with torch.device("meta"), SkipInit():
        return instantiate(card, *sizes.wired).to(max(set(dtypes), key=dtypes.count))


def _convert_model(
    form: Format, tensors: dict[str, Tensor], metadata: Mapping[str, Any], folder: Path, overrides: Sequence[str]
) -> Report:
    """Convert a whole model: its preset with the overrides, and the backbone that is inferred from the tensors."""
    groups = {word.partition("=")[0] for word in overrides}
    preset = () if "model" in groups else (word for word in form.preset if word.partition("=")[0] not in groups)
    cfg = plain(compose(*preset, *overrides))
    if not groups & {"model", "backbone"}:
        split = [(form.submodule(key), value) for key, value in tensors.items()]
        language = {target[1]: value for target, value in split if target is not None and target[0] == "backbone"}
        language_form = recognise(language)
        cfg["backbone"] = make_card(language_form.part, infer_sizes(language_form, language, metadata))[1]
    cfg["weights"] = {}
    cfg.pop("hydra", None)
    model = build(cfg, meta_backbone=True)
    report = load(model, tensors, format=form.name)
    save(model, folder)
    return report


def _unwrap_chain(card: Mapping[str, Any], tensors: dict[str, Tensor]) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Card and tensors of the one part of a `Sequential` that has tensors."""
    while "parts" in card:
        indices = {name.split(".")[1] for name in tensors}
        if len(indices) != 1:
            break
        (index,) = indices
        card = card["parts"][int(index)]
        tensors = {name.removeprefix(f"parts.{index}."): value for name, value in tensors.items()}
    return card, tensors


def _title(source: Source) -> str:
    return Path(source).name if isinstance(source, str | Path) else ", ".join(Path(one).name for one in source)
