"""Conversion of published weights to checkpoints, and back: the configuration is inferred from names and shapes."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from mmrnn.checkpoints.config_file import read_config
from mmrnn.checkpoints.infer import CONTRACTS, infer_sizes, is_recognised, make_card, recognise
from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.save import save
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import find_target, instantiate
from mmrnn.config.skip_init import SkipInit
from mmrnn.config.tree import plain, weight_sources
from mmrnn.config.yaml_file import read_yaml
from mmrnn.io import shards
from mmrnn.io.atomic import replace_file
from mmrnn.io.errors import first_line
from mmrnn.io.tensor_files import Source, read, read_metadata
from mmrnn.model.build import build
from mmrnn.model.quantize import Dequantized
from mmrnn.weights import Format, Report, WeightsError, load
from mmrnn.weights.export import rename
from mmrnn.weights.format import Sizes
from mmrnn.weights.start_states import to_file as to_file_of_states
from mmrnn.weights.wrapper_prefixes import strip_attribute, strip_wrapper_prefixes

STATE = "state"
"""Name of the start states of an RWKV (state tuning) as a part."""

PREFIXES = {"backbone": "backbone.", "connector": "modalities.image.connector.", STATE: "backbone."}
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
    require_new(folder)
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


def require_new(folder: Path) -> None:
    """Refuse a folder that has files.

    Raises:
        ConfigError: it has.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; name a new folder")


def to_file(folder: Path, file: Path, format: str, part: str | None = None, *, trusted: Collection[str] = ()) -> int:
    """Write the tensors of a folder to a file under the names of another project.

    Adapters (LoRA) are merged, and weights computed from codes.

    Args:
        file: `.safetensors`; any other suffix: a pickle of torch.
        part: `backbone` or `connector` of a whole model, or `state`: the start states of its RWKV alone.
        trusted: packages besides mmrnn whose classes the configuration may name.

    Returns:
        Number of tensors written.

    Raises:
        WeightsError: the format cannot be written, or does not fit.
        ConfigError: the folder holds no model, or more than one part.
    """
    cfg = read_config(folder)
    card, tensors = _read_part(folder) if cfg is None else _read_model(folder, cfg, part, trusted)
    try:
        target = find_target(card, trusted)
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault
    renamed = to_file_of_states(tensors["start"]) if part == STATE else rename(tensors, target, format)
    renamed = {name: value.contiguous() for name, value in renamed.items()}
    write = save_file if file.suffix == ".safetensors" else torch.save
    replace_file(file, lambda path: write(renamed, str(path)))
    return len(renamed)


def _read_part(folder: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Card and tensors of a folder that `to_folder` has written for a part."""
    tensors = _read_own(folder)
    cards = [path for group in CONTRACTS for path in (folder / group).glob("*.yaml")]
    if len(cards) != 1:
        raise ConfigError(f"{folder} holds {len(cards)} cards; leave one (in {' or '.join(CONTRACTS)}/)")
    return read_yaml(cards[0]), tensors


def _read_own(folder: Path) -> dict[str, Tensor]:
    source = shards.weight_source(folder)
    if source is None:
        raise ConfigError(f"{folder} holds no model ({shards.MODEL}); name the folder of a finished run")
    return read(source)


def _read_model(
    folder: Path, cfg: Mapping[str, Any], part: str | None, trusted: Collection[str]
) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Card and tensors of a part of a checkpoint. Adapters, codes and tensors in a base need the built model."""
    tensors = _read_own(folder)
    if part not in PREFIXES:
        raise ConfigError(
            f"{folder} holds a whole model, and a file takes one part: add --part {' or --part '.join(PREFIXES)}"
        )
    if cfg.get("adapter") or cfg.get("quantize") or weight_sources(cfg.get("weights")):
        model = load_model(folder, trusted=trusted)
        Dequantized()(model)
        if cfg.get("adapter"):
            instantiate(cfg["adapter"], trusted=trusted).merge(model)
        tensors = model.state_dict()
    prefix = PREFIXES[part]
    tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if part == STATE:
        if "start" not in tensors:
            raise ConfigError(f"{folder} holds no start states; train them with adapter=state")
        return cfg["backbone"], {"start": tensors["start"]}
    return _unwrap_chain(cfg[part], tensors)


def _empty(card: Mapping[str, Any], sizes: Sizes, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build a part on the meta device, in the dtype of most of the tensors."""
    dtypes = [value.dtype for value in tensors.values() if value.is_floating_point()]
    if not dtypes:
        raise WeightsError("none of these tensors is of floating point; quantised weights are read from GGUF alone")
    try:
        with torch.device("meta"), SkipInit():
            return instantiate(card, *sizes.wired).to(max(set(dtypes), key=dtypes.count))
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        kind = card["_target_"].rpartition(".")[2]
        raise WeightsError(f"no {kind} has the sizes that these tensors claim: {first_line(error)}") from error


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
    model = build(cfg, trusted=cfg["trusted"], meta_backbone=True)
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
