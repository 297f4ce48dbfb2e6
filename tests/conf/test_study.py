"""The models of the study differ in their backbone alone, and have the same size."""

import pytest

from mmrnn.cli.show import on_meta
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.tree import plain

NAMES = ("rwkv5", "rwkv6", "rwkv7", "transformer")


@pytest.fixture(scope="module")
def models():
    return {name: on_meta(plain(compose(f"model=study_{name}"))) for name in NAMES}


def test_backbones_have_equally_many_parameters(models):
    counts = {name: sum(value.numel() for value in model.backbone.parameters()) for name, model in models.items()}
    assert max(counts.values()) <= 1.03 * min(counts.values()), counts


def test_all_have_four_layers_and_64_tokens(models):
    for name, model in models.items():
        modality = model.modalities["image"]
        assert (model.backbone.width, model.backbone.depth) == (128, 4), name
        assert modality.layout(*modality.image.size).tokens == 64, name


def test_only_the_backbone_differs():
    configs = [plain(compose(f"model=study_{name}")) for name in NAMES]
    for config in configs:
        del config["backbone"], config["out"]  # named by the time
    assert all(config == configs[0] for config in configs)


def test_connectors_make_as_many_tokens_as_they_say():
    tokens = {"linear": 64, "pool": 64, "merge": 16, "resampler": 16, "qformer": 16}
    assert {f"{name}_study.yaml" for name in tokens} == {
        path.name for path in (conf_dir() / "connector").glob("*_study.yaml")
    }
    for name, number in tokens.items():
        modality = on_meta(plain(compose("model=study_rwkv6", f"connector={name}_study"))).modalities["image"]
        assert modality.layout(*modality.image.size).tokens == number, name


@pytest.mark.parametrize("scan", ["bidirectional", "multidirectional"])
def test_four_layers_are_enough_for_every_scan(scan):
    for name in NAMES[:3]:
        on_meta(plain(compose(f"model=study_{name}", f"scan={scan}")))
