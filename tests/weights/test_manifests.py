"""Full-size truth without weights: the maps cover every published checkpoint completely, in both directions."""

import json
import re
from functools import cache
from itertools import product
from math import prod
from pathlib import Path

import pytest
import torch

from mmrnn.config import build, compose, conf_dir, make, plain
from mmrnn.weights import Report, convert
from mmrnn.weights.names import export

FOLDER = Path(__file__).parent / "manifests"
MANIFESTS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
FULL = sorted(
    path.stem for path in (conf_dir() / "model").glob("*.yaml") if not path.stem.endswith(("_tiny", "_small", "smol"))
)
PREFIXES = {
    "connector": ("proj.", "model.mm_projector.", "model.multi_modal_projector."),
    "encoder": ("vit.", "model.vision_tower."),
}


def expanded(manifest):
    """Name -> tensor without memory."""
    tensors = {}
    for pattern, (dtype, shape) in manifest["tensors"].items():
        spans = [range(int(a), int(b) + 1) for a, b in re.findall(r"\{(\d+)\.\.(\d+)\}", pattern)]
        form = re.sub(r"\{\d+\.\.\d+\}", "{}", pattern)
        for numbers in product(*spans):
            tensors[form.format(*numbers)] = torch.empty(shape, dtype=TYPES[dtype], device="meta")
    return tensors


def part_of(name):
    return next((part for part, prefixes in PREFIXES.items() if name.startswith(prefixes)), "backbone")


@cache
def built(name, card):
    group, _, option = card.partition("/")
    with torch.device("meta"):
        if group == "model":
            vocab = ["backbone.vocab=32064"] if name.endswith("_hf") else []
            return build(compose(f"model={option}", *vocab))
        return make(plain(compose(config=card))[group])


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_map_covers_the_checkpoint(name):
    """Every name is used or left out for a reason (else `convert` fails), and every tensor of the model is filled."""
    manifest = MANIFESTS[name]
    tensors, model, report = expanded(manifest), built(name, manifest["card"]), Report("")
    ready = convert(model, tensors, report=report)
    assert {key: value.shape for key, value in ready.items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert set(report.ignored) <= set(tensors)
    assert all(report.ignored.values())


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_parameters_are_as_published(name):
    manifest = MANIFESTS[name]
    counts = {}
    for key, value in expanded(manifest).items():
        counts[part_of(key)] = counts.get(part_of(key), 0) + prod(value.shape)
    assert counts == manifest["parameters"]
    model = built(name, manifest["card"])
    parts = (
        {"backbone": model}
        if manifest["card"].startswith("backbone/")
        else {
            "backbone": model.backbone,
            "connector": model.senses["image"].connector,
        }
    )
    for part, module in parts.items():
        assert sum(value.numel() for value in module.parameters()) == manifest["parameters"][part], part


@pytest.mark.parametrize("name", [n for n, one in MANIFESTS.items() if one["card"].startswith("backbone/")])
def test_written_as_it_was_published(name):
    """The other direction: our tensors under their names and in their shapes are the published ones."""
    manifest = MANIFESTS[name]
    format = "llama" if not name.startswith("rwkv") else name.partition("_")[0]
    if name.endswith("_gguf"):
        pytest.skip("GGUF is read only")
    written = export(built(name, manifest["card"]), format)
    published = expanded(manifest)
    assert {key: value.shape for key, value in written.items()} == {key: v.shape for key, v in published.items()}


@pytest.mark.parametrize("preset", FULL)
def test_every_full_size_preset_has_a_manifest(preset):
    if f"model/{preset}" not in {manifest["card"] for manifest in MANIFESTS.values()}:
        pytest.skip(f"no manifest for model={preset}: add it to make_manifests.py")
    stands = [name for name, manifest in MANIFESTS.items() if manifest["card"] == f"model/{preset}"]
    assert all("encoder" in MANIFESTS[name]["parameters"] for name in stands)
