"""Golden cases are read from one folder. `--shapes` checks shapes in every call, `--no-skips` fails skipped tests."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook
from safetensors.torch import load_file

torch.set_num_threads(1)

TESTS = Path(__file__).parent
PARTS = ("backbones", "conf", "connectors", "designs", "encoders", "layers", "model")
WKV = re.compile(r"test_(wkv\d|delta|selective_scan)")
"""Tests that `--shapes` runs: folders of parts, and files of the operators that they call."""


def pytest_addoption(parser):
    parser.addoption(
        "--shapes", action="store_true", help="run the tests of parts alone, and check shapes and types of every call"
    )
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped has failed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome, report.longrepr = "failed", f"skipped: {report.longrepr[2]}"
    return report


def pytest_configure(config):
    """Before anything of mmrnn is imported: the hook changes modules while they are loaded."""
    if config.getoption("--shapes"):
        loaded = {"mmrnn", "mmrnn_kernels"} & set(sys.modules)
        assert not loaded, f"{loaded} came before the hook"
        install_import_hook(["mmrnn", "mmrnn_kernels"], "beartype.beartype")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--shapes"):
        chosen = [item for item in items if item.path.relative_to(TESTS).parts[0] in PARTS or WKV.match(item.path.name)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen


@pytest.fixture(scope="session")
def golden():
    """`golden(name)`: the description of a golden case and its tensors."""
    folder = Path(os.environ.get("MMRNN_GOLDEN", TESTS / "golden"))

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
