"""A whole VisualRWKV-7 file, under the names of the original project."""

import pytest
import torch

from mmrnn import weights
from mmrnn.checkpoints.convert import recognise, to_file, to_folder
from mmrnn.checkpoints.load import load_model
from mmrnn.config.compose import compose
from mmrnn.io.tensor_files import read
from mmrnn.model.build import build
from mmrnn.weights.export import export
from mmrnn.weights.formats.rwkv7 import NAMES

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
    for name, value in model.modalities["image"].connector.state_dict().items():
        named[f"proj.{CONNECTOR[name]}"] = value
    for tower, kept in zip(TOWERS, model.modalities["image"].encoder.towers, strict=True):
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
    with pytest.raises(weights.WeightsError, match="no format of FusedEncoder"):
        weights.load(target, less)


def test_the_language_model_alone(model, published):
    alone = {name.removeprefix("rwkv."): value for name, value in published.items() if name.startswith("rwkv.")}
    target = build(compose("model=visualrwkv7_tiny")).backbone
    assert weights.load(target, alone).format == "rwkv7"
    assert all(torch.equal(a, b) for a, b in zip(model.backbone.parameters(), target.parameters(), strict=True))
    with pytest.raises(weights.WeightsError, match=r"missing: blocks\.1\.time_mix\.residual"):
        weights.load(target, {name: value for name, value in alone.items() if not name.endswith("att.v0")})


THREE = ("dino_featurizer", "siglip_featurizer", "sam_featurizer")
GATED = {"visualrwkv7_tiny": ("rwkv7", "visualrwkv_v7"), "visualrwkv_hd_tiny": ("rwkv6", "visualrwkv_hd")}


@pytest.mark.parametrize("preset", GATED)
def test_a_released_file_with_three_towers_becomes_a_model(preset, tmp_path):
    """VisualRWKV-7 and -HD in miniature: the connector is chosen by the file, the sizes are in its tensors."""
    language, projection = GATED[preset]
    source = build(compose(f"model={preset}", "encoder=tri_tiny"))
    modality = source.modalities["image"]
    named = {f"rwkv.{name}": value for name, value in export(source.backbone, language).items()}
    named |= {f"proj.{name}": value for name, value in export(modality.connector, projection).items()}
    for name, tower in zip(THREE, modality.encoder.towers, strict=True):
        for key, value in tower.trunk.state_dict().items():
            original = key.replace("mlp.fc", "mlp.lin") if name == "sam_featurizer" else key
            named[f"vit.{name}.{original}"] = value
    torch.save({name: value.clone() for name, value in named.items()}, tmp_path / "a.pth")
    assert recognise(named).name == "visualrwkv_mlp"
    to_folder(tmp_path / "a.pth", tmp_path / "out", ("encoder=tri_tiny", "~tokenizer"))
    found = load_model(tmp_path / "out")
    assert type(found.backbone) is type(source.backbone)
    assert type(found.modalities["image"].connector) is type(modality.connector)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), found.parameters(), strict=True))
    for part, format in (("backbone", language), ("connector", projection)):
        to_file(tmp_path / "out", tmp_path / "b.pth", format, part)
        prefix = {"backbone": "rwkv.", "connector": "proj."}[part]
        inverse = read(tmp_path / "b.pth")
        assert set(inverse) == {name.removeprefix(prefix) for name in named if name.startswith(prefix)}
        assert all(torch.equal(value, named[prefix + name]) for name, value in inverse.items())
