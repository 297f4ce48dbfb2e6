"""Golden cases are read from one folder; with `--shapes`, shapes are checked in every call."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook
from safetensors.torch import load_file

torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--shapes", action="store_true", help="check the annotated shapes and types of every call")


def pytest_configure(config):
    """Before anything of mmrnn is imported: the hook changes modules while they are loaded."""
    if config.getoption("--shapes"):
        loaded = {"mmrnn", "mmrnn_kernels"} & set(sys.modules)
        assert not loaded, f"{loaded} came before the hook"
        install_import_hook(["mmrnn", "mmrnn_kernels"], "beartype.beartype")


@pytest.fixture(scope="session")
def golden():
    """`golden(name)`: the description of a golden case and its tensors."""
    folder = Path(os.environ.get("MMRNN_GOLDEN", Path(__file__).parent / "golden"))

    def read(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
        if not (folder / f"{name}.json").is_file():
            pytest.skip(f"no golden case {name} in {folder}")
        meta = json.loads((folder / f"{name}.json").read_text())
        tensors = {}
        for file in meta.get("files", [f"{name}.safetensors"]):
            if (folder / file).is_file():
                tensors |= load_file(str(folder / file))
        return meta, tensors

    return read


@pytest.fixture(scope="session")
def params():
    """`params(tensors)`: the parameters of a golden case under their original names."""
    return lambda tensors, prefix="param/": {
        name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
    }


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
