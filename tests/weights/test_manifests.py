"""Full-size truth without weights: the maps cover every published checkpoint completely, in both directions.

`manifests/` holds names, shapes and types, `presets.yaml` says which preset stands for which of them.
"""

import json
import re
from fnmatch import fnmatch
from functools import cache
from itertools import product
from math import prod
from pathlib import Path

import pytest
import torch
import yaml

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.model.build import build
from mmrnn.weights import Report, convert
from mmrnn.weights.convert import unwrap_single
from mmrnn.weights.export import export, writable_formats
from mmrnn.weights.format import inner_parts
from mmrnn.weights.registry import FORMATS
from mmrnn.weights.wrapper_prefixes import strip_wrapper_prefixes

HERE = Path(__file__).parent
MANIFESTS = sorted(path.stem for path in (HERE / "manifests").glob("*.json"))
TABLE = yaml.safe_load((HERE / "presets.yaml").read_text())
ENTRIES = {f"{name}-{index}": (name, one) for name, all in TABLE["presets"].items() for index, one in enumerate(all)}
FULL = sorted(
    path.stem for path in (conf_dir() / "model").glob("*.yaml") if not path.stem.endswith(("_tiny", "_small"))
)
READ_ONLY = ("visualglm_6b-0", "fuyu_8b-0", "fuyu_8b-1", "smol-0")
"""Entries none of whose parts has a format that can be written."""

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PLACES = {
    "encoder": "modalities.image.encoder",
    "connector": "modalities.image.connector",
    "backbone": "backbone",
    "hook": "hook",
}
SPAN = re.compile(r"\{(\d+)\.\.(\d+)(?:\.\.(\d+))?\}")


@cache
def manifest(name):
    """Name -> tensor without memory."""
    tensors = {}
    for pattern, (dtype, shape) in json.loads((HERE / "manifests" / f"{name}.json").read_text())["tensors"].items():
        spans = [range(int(a), int(b) + 1, int(step or 1)) for a, b, step in SPAN.findall(pattern)]
        for numbers in product(*spans):
            name = SPAN.sub("{}", pattern).format(*numbers)
            tensors[name] = torch.empty(shape, dtype=TYPES[dtype], device="meta")
    return tensors


def joined(names):
    return {
        name: value for one in ([names] if isinstance(names, str) else names) for name, value in manifest(one).items()
    }


@cache
def part(card, *wired):
    with torch.device("meta"):
        return instantiate(json.loads(card), *wired)


@cache
def built(preset, *overrides):
    """The model on the meta device. Presets share many of their parts, and each is made once."""
    with pytest.MonkeyPatch.context() as patched, torch.device("meta"):
        patched.setattr(
            "mmrnn.model.build.instantiate", lambda card, *wired, trusted=(): part(json.dumps(card), *wired)
        )
        return build(compose(f"model={preset}", *overrides))


def made(card):
    return part(json.dumps(plain(compose(config=card))[card.partition("/")[0]]))


def shapes(tensors):
    return {name: tuple(value.shape) for name, value in tensors.items()}


def opened(part, tensors):
    """Tensors that a part takes of a file; every name is used, or left out for a reason (else `convert` fails)."""
    report = Report("")
    ready = convert(part, tensors, report=report)
    assert set(report.ignored) <= set(strip_wrapper_prefixes(tensors))
    assert all(report.ignored.values())
    return ready, report


def model_of(entry):
    name, one = ENTRIES[entry]
    return built(name, *one.get("overrides", ()))


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_maps_cover_the_checkpoints_of_a_preset(entry):
    """Every tensor of the model is filled, in its shape."""
    one, model, filled = ENTRIES[entry][1], model_of(entry), {}
    for place, names in one["weights"].items():
        path = "" if place == "model" else f"{PLACES[place]}."
        ready, _ = opened(model.get_submodule(path.rstrip(".")), joined(names))
        filled |= {path + name: value for name, value in ready.items()}
    kept = tuple(one.get("kept", ()))
    wanted = {name: shape for name, shape in shapes(model.state_dict()).items() if not name.startswith(kept or ("?",))}
    assert shapes(filled) == wanted


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_parameters_of_a_preset_are_as_published(entry):
    model = model_of(entry)
    parts = {
        place: sum(p.numel() for p in model.get_submodule(PLACES[place]).parameters())
        for place in ENTRIES[entry][1]["parameters"]
    }
    assert parts == ENTRIES[entry][1]["parameters"]


@pytest.mark.parametrize("card", TABLE["cards"])
def test_the_maps_cover_the_checkpoint_of_a_card(card):
    part, one = made(card), TABLE["cards"][card]
    assert shapes(opened(part, joined(one["weights"]))[0]) == shapes(part.state_dict())
    if "parameters" in one:
        assert sum(value.numel() for value in part.parameters()) == one["parameters"]


@pytest.mark.parametrize("name", TABLE["files"])
def test_a_manifest_has_the_published_number_of_parameters(name):
    one = TABLE["files"][name]
    counted = {
        key: value for key, value in manifest(name).items() if not any(fnmatch(key, p) for p in one.get("twice", ()))
    }
    assert sum(prod(value.shape) for value in counted.values()) == one["parameters"]


def parts_of(model, tensors):
    """Each part of a model or of a card with the tensors of a file that are its own, under the names it is given."""
    report = opened(model, tensors)[1]
    whole = [form for form in FORMATS if form.name == report.format and form.part is None and form.fits(model, tensors)]
    if not whole:
        return [(part, tensors) for part in inner_parts(model).values()]
    groups = {}
    for key, value in tensors.items():
        if whole[0].reason(key) is None:
            path, name = whole[0].submodule(key)
            groups.setdefault(path, {})[name] = value
    return [(model.get_submodule(path), group) for path, group in groups.items()]


def written(part, tensors):
    """The names that a part is read from, and those it is written under; None where its format is only read."""
    _, report = opened(part, tensors)
    part = unwrap_single(part)[0]
    if report.format not in {form.name for form in writable_formats(type(part))}:
        return None
    used = {name: value for name, value in strip_wrapper_prefixes(tensors).items() if name not in report.ignored}
    return shapes(used), shapes(export(part, report.format))


@pytest.mark.parametrize("card", TABLE["cards"])
def test_a_card_is_written_as_it_was_published(card):
    found = written(made(card), joined(TABLE["cards"][card]["weights"]))
    if card.startswith("encoder/"):
        assert found is None
    else:
        assert found[0] == found[1]


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_parts_of_a_preset_are_written_as_they_were_published(entry):
    """The other direction, for the parts whose format has it."""
    model, one = model_of(entry), ENTRIES[entry][1]
    pairs = []
    for place, names in one["weights"].items():
        if place == "model":
            pairs += parts_of(model, joined(names))
        else:
            pairs.append((model.get_submodule(PLACES[place]), joined(names)))
    found = [pair for part, tensors in pairs if part.state_dict() and (pair := written(part, tensors)) is not None]
    for theirs, ours in found:
        assert theirs == ours
    assert bool(found) == (entry not in READ_ONLY)


def test_every_manifest_is_used():
    used = {
        name
        for _, one in ENTRIES.values()
        for names in one["weights"].values()
        for name in ([names] if isinstance(names, str) else names)
    }
    assert used | {one["weights"] for one in TABLE["cards"].values()} == set(MANIFESTS)


@pytest.mark.parametrize("preset", FULL)
def test_every_full_size_preset_stands_for_a_checkpoint_or_says_why_not(preset):
    if preset in TABLE["unpublished"]:
        assert preset not in TABLE["presets"]
        assert TABLE["unpublished"][preset]
    else:
        assert preset in TABLE["presets"], f"add the checkpoint of model={preset} to presets.yaml and to published/"


def test_the_table_names_no_preset_that_is_gone():
    assert {*TABLE["presets"], *TABLE["unpublished"]} == set(FULL)
