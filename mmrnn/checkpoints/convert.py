"""Bare files into folders that mmrnn reads, and back: what a configuration would say is told by the tensors."""

import re
from collections.abc import Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mmrnn import backbones, connectors
from mmrnn.checkpoints.config_file import read_config
from mmrnn.checkpoints.save import save
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import find_target, instantiate, parameters
from mmrnn.config.tree import plain
from mmrnn.io import shards
from mmrnn.io.atomic import replace_file
from mmrnn.io.tensor_files import Source, facts, read
from mmrnn.model.build import build
from mmrnn.weights import Report, load
from mmrnn.weights.convert import WeightsError, strip_wrapper_prefixes
from mmrnn.weights.export import rename
from mmrnn.weights.format import Format, Sizes, most_specific
from mmrnn.weights.registry import FORMATS

ROOMS = {"backbone": backbones, "connector": connectors}


def to_folder(source: Source, folder: Path, overrides: Sequence[str] = (), format: str | None = None) -> Report:
    """Write a checkpoint that is like a file: of a part with a card for it, or of a whole model.

    A part comes out as `model.safetensors` and `GROUP/NAME.yaml`, a whole model as what `mmrnn.load` opens.

    Args:
        overrides: what the tensors of a whole model do not say, or another preset than the usual one.

    Raises:
        WeightsError: no known format, or several that fit.
        ConfigError: the overrides do not fit, or the folder has other files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; name a new folder")
    tensors, beside = strip_wrapper_prefixes(read(source)), facts(source)
    form = recognise(tensors, format)
    if form.part == "VLM":
        return _whole(form, tensors, beside, folder, overrides)
    if overrides:
        raise ConfigError(f"{overrides[0]}: the sizes of a {form.part} are in its tensors; leave it out")
    sizes = form.infer({name: value.shape for name, value in tensors.items()}, beside)
    group, card = describe(form.part, sizes)
    module = _empty(card, sizes, tensors)
    report = load(module, tensors, format=form.name)
    name = re.sub(r"\W+", "_", folder.resolve().name)
    text = yaml.safe_dump(card, sort_keys=False)
    about = f"# {form.part} as found in {_title(source)} (format {form.name})\n"
    replace_file(folder / group / f"{name}.yaml", lambda path: path.write_text(about + text, encoding="utf-8"))
    shards.write(folder, module.state_dict(), {})
    return report


def to_file(folder: Path, file: Path, format: str, part: str | None = None) -> int:
    """Write the tensors of a folder under the names of somebody else.

    Args:
        part: of a whole model: backbone or connector.

    Returns:
        How many tensors were written.

    Raises:
        WeightsError: the format cannot be written, or does not fit.
        ConfigError: the folder holds no model, or more than one part.
    """
    shards.finish_pending_save(folder)
    weights, cfg = shards.weight_file(folder), read_config(folder)
    if weights is None:
        raise ConfigError(f"{folder} holds no model ({shards.MODEL})")
    tensors = read(weights)
    if cfg is not None:
        if part not in ROOMS:
            raise ConfigError("a whole model is written part by part: say --part backbone or --part connector")
        card = cfg[part]
        prefix = "backbone." if part == "backbone" else "modalities.image.connector."
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        card, tensors = _sole(card, tensors)
    else:
        cards = [path for group in ROOMS for path in (folder / group).glob("*.yaml")]
        if len(cards) != 1:
            raise ConfigError(f"{folder} holds {len(cards)} cards; it needs one (in {' or '.join(ROOMS)}/)")
        card = yaml.safe_load(cards[0].read_text(encoding="utf-8"))
    named = rename(tensors, [kind.__name__ for kind in find_target(card).__mro__], format)
    named = {name: value.contiguous() for name, value in named.items()}
    if file.suffix == ".safetensors":
        from safetensors.torch import save_file

        replace_file(file, lambda path: save_file(named, str(path)))
    else:
        replace_file(file, lambda path: torch.save(named, path))
    return len(named)


def recognise(tensors: Mapping[str, Tensor], name: str | None = None) -> Format:
    """The one format whose marks these tensors have, and that tells sizes.

    Raises:
        WeightsError: none, or several.
    """
    fitting = [form for form in FORMATS if set(form.signature) <= set(tensors) and (form.infer or form.preset)]
    wholes = [form for form in fitting if form.part == "VLM"]
    fitting = most_specific([form for form in wholes or fitting if name in (None, form.name)])
    if len({(form.name, form.part) for form in fitting}) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(sorted(f"{form.name} ({form.part})" for form in fitting))
        raise WeightsError(f"these weights could be any of {names}: say --format NAME")
    known = ", ".join(sorted({form.name for form in FORMATS if form.infer or form.preset}))
    raise WeightsError(f"no format whose sizes can be told ({known}) has these names: {', '.join(list(tensors)[:3])}")


def describe(part: str, sizes: Sizes) -> tuple[str, dict[str, Any]]:
    """The group and the card of a part of these sizes."""
    group = next(group for group, room in ROOMS.items() if part in room.__all__)
    target = f"mmrnn.{ROOMS[group].__name__.rpartition('.')[2]}.{part}"
    known = parameters(find_target({"_target_": target}))
    knobs = {name: one.default for name, one in known.items() if one.kind is Parameter.KEYWORD_ONLY}
    return group, {"_target_": target, **knobs, **sizes.knobs}


def _empty(card: Mapping[str, Any], sizes: Sizes, tensors: Mapping[str, Tensor]) -> torch.nn.Module:
    """The part without memory, in the type of most of the tensors."""
    kinds = [value.dtype for value in tensors.values() if value.is_floating_point()]
    with torch.device("meta"):
        return instantiate(card, *sizes.wired).to(max(set(kinds), key=kinds.count))


def _whole(
    form: Format, tensors: dict[str, Tensor], beside: Mapping[str, Any], folder: Path, overrides: Sequence[str]
) -> Report:
    groups = {word.partition("=")[0] for word in overrides}
    preset = () if "model" in groups else (word for word in form.preset if word.partition("=")[0] not in groups)
    cfg = plain(compose(*preset, *overrides))
    if not groups & {"model", "backbone"}:
        routed = [(form.route(name), value) for name, value in tensors.items()]
        inner = {route[1]: value for route, value in routed if route is not None and route[0] == "backbone"}
        language = recognise(inner)
        sizes = language.infer({name: value.shape for name, value in inner.items()}, beside)
        cfg["backbone"] = describe(language.part, sizes)[1]
    cfg["weights"], cfg["hydra"] = {}, None
    del cfg["hydra"]
    model = build(cfg, meta_backbone=True)
    report = load(model, tensors, format=form.name)
    save(model, folder)
    return report


def _sole(card: Mapping[str, Any], tensors: dict[str, Tensor]) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The part of a chain that has all the tensors."""
    while "parts" in card:
        number = {name.split(".")[1] for name in tensors}
        if len(number) != 1:
            break
        (index,) = number
        card = card["parts"][int(index)]
        tensors = {name.removeprefix(f"parts.{index}."): value for name, value in tensors.items()}
    return card, tensors


def _title(source: Source) -> str:
    return Path(source).name if isinstance(source, str | Path) else ", ".join(Path(one).name for one in source)
