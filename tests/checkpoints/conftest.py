"""A tiny model and what tests of checkpoints compare."""

import pytest
import torch

from mmrnn.config.compose import compose
from mmrnn.model.build import build


def _model(*overrides, seed=0):
    torch.manual_seed(seed)
    return build(compose("model=visualrwkv6_tiny", "encoder=patch_tiny", *overrides))


def _same(one, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def _files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def model():
    """Make a model from overrides."""
    return _model


@pytest.fixture
def same():
    """True for two models with equal tensors."""
    return _same


@pytest.fixture
def files():
    """Names of the files of a folder."""
    return _files
