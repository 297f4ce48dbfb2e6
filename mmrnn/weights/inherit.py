"""Inheritance: a model takes over what fits of another one, attention becoming the mixers of a linear RNN."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Size, Tensor, nn

from mmrnn.backbones.hybrid import GatedDeltaNet
from mmrnn.config.yaml_file import read_yaml
from mmrnn.io import hub, shards
from mmrnn.io.tensor_files import read
from mmrnn.layers.norm import ZeroCenteredRMSNorm
from mmrnn.weights.convert import WeightsError
from mmrnn.weights.linear_start import start_values

CONFIG = "config.yaml"
BACKBONE, BLOCK = "backbone.", re.compile(r"backbone\.blocks\.(\d+)\.")

PROJECTIONS = ("query", "key", "value", "output")
"""Names of the projections of an attention, in that of a transformer and in the mixers of a `Hybrid` alike."""

NAMES = {
    **{f"time_mix.{name.replace('query', 'receptance')}.weight": f"attention.{name}.weight" for name in PROJECTIONS},
    **{
        f"mixer.time_mix.{name.replace('query', 'receptance')}.weight": f"attention.{name}.weight"
        for name in PROJECTIONS
    },
    **{f"mixer.{name}.{leaf}": f"attention.{name}.{leaf}" for name in PROJECTIONS for leaf in ("weight", "bias")},
    "mixer.query_norm.weight": "attention.query_norm.weight",
    "mixer.key_norm.weight": "attention.key_norm.weight",
    "norm_mixer.weight": "norm_attention.weight",
    "norm_time.weight": "norm_attention.weight",
    "norm_channel.weight": "norm_mlp.weight",
}
"""Name in a block of a linear RNN -> name in a block of a transformer."""


@dataclass
class Inheritance:
    """Tensors that a model takes over.

    Attributes:
        values: by name in the model.
        sources: name in the model -> name in the source; names of tensors that are set to begin as linear attention
            are not among them.
        notes: in words: what was taken, what is set, what is as initialised, what was left.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_inheritance(model: nn.Module, source: str) -> Inheritance:
    """Return what a model takes over of a checkpoint of another one; the model is left as it is.

    Tensors of one name and shape are taken as they are, and a tied head from the embedding. Query, key, value and
    output of attention become receptance, key, value and output of an RWKV, or the projections of a gated delta rule,
    grouped heads repeated; where they do, the mixer is set such that it begins as linear attention (`linear_start`).

    Args:
        model: a whole model, perhaps on the meta device.
        source: folder of a checkpoint or run, or its name on the hub.

    Raises:
        WeightsError: the source is no checkpoint of a whole model, has another number of blocks, heads of other sizes,
            or nothing that fits.
        ConnectionError: the hub cannot be reached.
        ValueError: the source is damaged.
    """
    folder = Path(source)
    if not folder.exists() and hub.is_repo_id(source):
        folder = hub.fetch(source, also=[CONFIG])
    place, files = shards.text_file(folder, CONFIG), shards.weight_source(folder)
    if not place.is_file() or files is None:
        raise WeightsError(
            f"{source} holds no model ({CONFIG} and {shards.MODEL}); name the folder of a run, or convert published "
            "weights (`mmrnn convert FILE FOLDER`)"
        )
    return inherit(model, read(files), read_yaml(place).get("backbone") or {})


def inherit(model: nn.Module, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Inheritance:
    """Return what a model takes over of tensors of another one; see `read_inheritance`.

    Args:
        tensors: of a whole model, under our names.
        card: of the backbone that they belong to.

    Raises:
        WeightsError: as `read_inheritance`.
    """
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    _check_depth(shapes, tensors)
    found = Inheritance()
    for name, shape in shapes.items():
        for theirs in _candidates(name):
            if theirs in tensors and (value := _fitted(model, name, tensors[theirs], shape, card)) is not None:
                found.values[name], found.sources[name] = value, theirs
                break
    if not found.values:
        raise WeightsError("no tensor of the source fits the model; name a model of the same width and vocabulary")
    for path in _linear_mixers(found.sources):
        values = start_values(model.get_submodule(path))  # of an attention that stays one: none
        found.values |= {f"{path}.{name}": value for name, value in values.items()}
    found.notes = [*_notes(found, shapes, tensors)]
    return found


def _check_depth(shapes: Mapping[str, Size], tensors: Mapping[str, Tensor]) -> None:
    depths = [len({match[1] for name in names if (match := BLOCK.match(name))}) for names in (tensors, shapes)]
    if depths[0] != depths[1]:
        raise WeightsError(f"the source has {depths[0]} blocks, and the backbone {depths[1]}; set backbone.depth")


def _candidates(name: str) -> Iterator[str]:
    """Names in the source that a tensor of the model may come from, the nearest first."""
    yield name
    if match := BLOCK.match(name):
        if theirs := NAMES.get(name[match.end() :]):
            yield match[0] + theirs
    elif name == f"{BACKBONE}output.weight":
        yield f"{BACKBONE}embedding.weight"


def _fitted(model: nn.Module, name: str, value: Tensor, shape: Size, card: Mapping[str, Any]) -> Tensor | None:
    """A tensor of the source in the shape of that of the model; None: it has another.

    Raises:
        WeightsError: attention has another number of heads than the mixer that it becomes.
    """
    path, _, projection = name.rpartition(".")[0].rpartition(".")
    heads, size = _heads(card)
    if projection == "receptance" or (projection in PROJECTIONS and BLOCK.match(name)):
        mixer = model.get_submodule(path)
        own = mixer.key_size if isinstance(mixer, GatedDeltaNet) else mixer.head_size
        if heads and (mixer.heads, own) != (heads, size):
            raise WeightsError(
                f"{name}: attention has {heads} heads of {size} channels, and the mixer {mixer.heads} of {own}; "
                f"give it {heads} heads of {size} (backbone.head_size={size})"
            )
        if projection in ("key", "value") and value.shape != shape and shape[0] % value.shape[0] == 0:
            grouped = value.unflatten(0, (-1, size or own))
            value = grouped.repeat_interleave(shape[0] // value.shape[0], 0).flatten(0, 1)
    if value.shape != shape:
        return None
    zero_centred = isinstance(model.get_submodule(name.rpartition(".")[0]), ZeroCenteredRMSNorm)
    return value - 1 if zero_centred and not card.get("zero_centered") else value


def _heads(card: Mapping[str, Any]) -> tuple[int, int]:
    """Number and size of the heads of a transformer; 0 where its card has none (an RWKV, a hybrid)."""
    if "kv_heads" not in card:
        return 0, 0
    return card["heads"], card.get("head_size") or card["width"] // card["heads"]


def _linear_mixers(sources: Mapping[str, str]) -> list[str]:
    """Paths of the mixers that were attention of a transformer."""
    ends = (".receptance.weight", ".query.weight")
    return [
        name.rpartition(".")[0].rpartition(".")[0]
        for name, theirs in sources.items()
        if name.endswith(ends) and theirs.endswith(".attention.query.weight")
    ]


def _notes(found: Inheritance, shapes: Mapping[str, Size], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Sentences on what was taken, set, left as initialised, and not used, layers put together."""
    renamed = {name: theirs for name, theirs in found.sources.items() if name != theirs}
    same = [name for name in found.sources if name not in renamed]
    yield f"{len(same)} tensors were taken as they are: {_listed(same)}"
    if renamed:
        pairs = dict.fromkeys(f"{_layerless(theirs)} as {_layerless(name)}" for name, theirs in renamed.items())
        yield f"{len(renamed)} tensors were taken under other names: {', '.join(pairs)}"
    if begun := [name for name in found.values if name not in found.sources]:
        yield f"{len(begun)} tensors were set to begin as linear attention: {_listed(begun)}"
    if fresh := [name for name in shapes if name not in found.values]:
        yield f"{len(fresh)} tensors are as initialised: {_listed(fresh)}"
    if left := [name for name in tensors if name not in found.sources.values()]:
        yield f"{len(left)} tensors of the source fit nothing and were left: {_listed(left)}"


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(map(_layerless, names)))


def _layerless(name: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", name)
