"""A whole VisualRWKV-7 file, under the names of the original project."""

import pytest
import torch

from mmrnn import weights
from mmrnn.config import build, compose
from mmrnn.weights.rwkv7 import NAMES

CONNECTOR = {"gate.weight": "gate.weight", "output.weight": "o_proj.weight", "norm.weight": "ln_v.weight"}
CONNECTOR |= {"norm.bias": "ln_v.bias"}
TOWERS = ("dino_featurizer", "siglip_featurizer", "sam_featurizer")


def theirs(name: str) -> str:
    """Our name of a backbone tensor in the original's words."""
    for pattern, ours in NAMES.items():
        layer = name.split(".")[1] if name.startswith("blocks.") else ""
        if ours.replace("{}", layer) == name:
            return pattern.replace("{}", layer)
        if ours.endswith("*") and name.startswith(stem := ours[:-1].replace("{}", layer)):
            return pattern[:-1].replace("{}", layer) + name.removeprefix(stem)
    raise AssertionError(f"no format knows {name}")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return build(compose("model=visualrwkv7_tiny"))


@pytest.fixture(scope="module")
def published(model):
    named = {}
    for name, value in model.backbone.state_dict().items():
        vector = value.dim() == 1 and ".time_mix." in name and ".norm." not in name
        named[f"rwkv.{theirs(name)}"] = value.view(1, 1, -1) if vector else value
    for name, value in model.senses["image"].connector.state_dict().items():
        named[f"proj.{CONNECTOR[name]}"] = value
    for tower, kept in zip(TOWERS, model.senses["image"].encoder.towers, strict=True):
        named |= {f"vit.{tower}.{name}": value for name, value in whole(kept).items()}
    return named


def whole(tower):
    """The tensors of a tower, and its last block and norm where the model reads what is before them."""
    tensors = dict(tower.trunk.state_dict())
    if "neck.0.weight" not in tensors:
        last = {name: value for name, value in tensors.items() if name.startswith("blocks.1.")}
        tensors |= {name.replace("blocks.1.", "blocks.2."): value for name, value in last.items()}
        tensors |= {f"norm.{leaf}": torch.ones(tower.width) for leaf in ("weight", "bias")}
    return tensors


def test_a_whole_file(model, published):
    """Language model, gated projection and the three towers."""
    torch.manual_seed(2)
    target = build(compose("model=visualrwkv7_tiny"))
    report = weights.load(target, {name: value.bfloat16() for name, value in published.items()})
    assert report.format == "visualrwkv_mlp"
    assert report.loaded == len(target.state_dict())
    assert sum("the blocks from 2 on were left out" in note for note in report.notes) == 2
    for (name, a), b in zip(model.state_dict().items(), target.state_dict().values(), strict=True):
        assert torch.equal(a.bfloat16().float(), b), name


def test_a_file_without_a_tower_is_refused(published):
    target = build(compose("model=visualrwkv7_tiny"))
    less = {name: value for name, value in published.items() if "siglip" not in name}
    with pytest.raises(weights.WeightsError, match="no format of Fused"):
        weights.load(target, less)


def test_the_language_model_alone(model, published):
    alone = {name.removeprefix("rwkv."): value for name, value in published.items() if name.startswith("rwkv.")}
    target = build(compose("model=visualrwkv7_tiny")).backbone
    assert weights.load(target, alone).format == "rwkv7"
    assert all(torch.equal(a, b) for a, b in zip(model.backbone.parameters(), target.parameters(), strict=True))
    with pytest.raises(weights.WeightsError, match=r"missing: blocks\.1\.time_mix\.residual"):
        weights.load(target, {name: value for name, value in alone.items() if not name.endswith("att.v0")})
