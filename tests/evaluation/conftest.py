"""A tiny run with weights that answer each question differently."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image

import mmrnn
from mmrnn.inference.assistant import Assistant


class TinyRun(NamedTuple):
    folder: Path
    assistant: Assistant


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    torch.manual_seed(0)
    model = mmrnn.build(mmrnn.compose("model=visualrwkv6_tiny", "out=null"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    mmrnn.save(model, folder)
    return TinyRun(folder, mmrnn.load(folder))


@pytest.fixture(scope="session")
def images():
    """Six images of one size."""
    colours = ["red", "green", "blue", "white", "black", "orange"]
    return [Image.new("RGB", (24, 24), colour) for colour in colours]
