"""Feature maps of convolutional networks as tokens."""

import pytest
import torch
from einops import rearrange
from torch.nn import functional as F

from mmrnn.encoders import TimmFeatures
from mmrnn.weights import load

NAME = "test_efficientnet"  # timm's own miniature: 16, 24, 32, 48, 64 channels, then 256


def create(name, **knobs):
    import timm

    return timm.create_model(name, **knobs)


def maps(**knobs):
    return TimmFeatures(**{"name": NAME, "size": 64, **knobs}).eval()


@pytest.fixture(scope="module")
def whole():
    return create(NAME, num_classes=0).eval()


def tokens(features):
    return rearrange(features, "m e rows cols -> m (rows cols) e")


@pytest.mark.parametrize(
    ("layer", "grid", "width"), [(-1, 2, 256), (5, 2, 256), (-2, 2, 64), (3, 4, 48), (-3, 4, 48), (0, 32, 16)]
)
def test_one_map(whole, layer, grid, width):
    encoder = maps(layer=layer)
    load(encoder, whole.state_dict())
    images = torch.randn(2, 3, 64, 64)
    layout = encoder.layout(64, 64)
    assert (layout.rows, layout.cols, encoder.width) == (grid, grid, width)
    stages = whole.forward_intermediates(images, intermediates_only=True)
    expected = [*stages, whole.forward_features(images)][layer]
    torch.testing.assert_close(encoder(images), tokens(expected))


@pytest.mark.parametrize("join", ["unshuffle", "pool"])
def test_maps_joined_on_the_coarsest_grid(whole, join):
    encoder = maps(layer=[-1, 3, 2], join=join)
    load(encoder, whole.state_dict())
    images = torch.randn(2, 3, 64, 96)
    stages = whole.forward_intermediates(images, intermediates_only=True)
    down = F.pixel_unshuffle if join == "unshuffle" else F.avg_pool2d
    parts = [whole.forward_features(images), down(stages[3], 2), down(stages[2], 4)]
    found = encoder(images)
    assert found.shape[1:] == (encoder.layout(64, 96).tokens, encoder.width)
    torch.testing.assert_close(found, tokens(torch.cat(parts, dim=1)))


def test_stages_without_the_last_map(whole):
    encoder = maps(layer=[3, 1], join="pool")
    report = load(encoder, whole.state_dict())
    assert "after the last feature map that is used were left out" in report.notes[0]
    assert not [name for name in encoder.state_dict() if "conv_head" in name or "blocks.4" in name]
    images = torch.randn(1, 3, 64, 64)
    stages = whole.forward_intermediates(images, intermediates_only=True)
    torch.testing.assert_close(encoder(images), tokens(torch.cat((stages[3], F.avg_pool2d(stages[1], 4)), dim=1)))


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "resnet18", "regnetx_002"])
def test_other_families(name):
    encoder = TimmFeatures(name=name, size=64)
    found = encoder(torch.randn(2, 3, 64, 64))
    assert found.shape == (2, encoder.layout(64, 64).tokens, encoder.width)
    found.sum().backward()
    assert not [key for key, value in encoder.named_parameters() if value.grad is None]
    twin = TimmFeatures(name=name, size=64)
    load(twin, create(name).state_dict())


def test_batch_norms_learn_only_where_they_are_trained():
    encoder = maps().train()
    assert encoder.trunk.bn1.training
    encoder.requires_grad_(False)
    assert not encoder.train().trunk.bn1.training
    encoder.trunk.bn2.requires_grad_(True)
    encoder.train()
    assert encoder.trunk.bn2.training
    assert not encoder.trunk.bn1.training
