"""Golden cases are read from one folder. `--shapes` checks shapes in every call, `--no-skips` fails skipped tests."""

import json
import os
import pickle
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


def pytest_ignore_collect(collection_path, config):
    """With `--shapes` other tests are not even imported."""
    parts = collection_path.relative_to(TESTS).parts if collection_path.is_relative_to(TESTS) else ()
    if config.getoption("--shapes") and parts and parts[0] not in PARTS:
        return not (parts == ("kernels",) or WKV.match(collection_path.name))
    return None


@pytest.fixture(scope="session", autouse=True)
def hydra_reads_once():
    """Hydra takes 0.2 s of processor time for a composition, half of all tests' together: it parses each of our cards
    and of its own files once, and composes the same overrides once."""
    from hydra._internal.config_repository import ConfigRepository
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    import mmrnn.config.compose as module

    load, compose, known = ConfigRepository.load_config, module._compose, {}

    def remember(key, make):
        if key not in known:
            known[key] = pickle.dumps(make())
        return pickle.loads(known[key])

    def loaded(self, config_path):
        source = self._find_object_source(config_path=config_path, object_type=ObjectType.CONFIG)
        if source is None or (source.scheme() != "pkg" and source.path != str(module.conf_dir())):
            return load(self, config_path)
        return remember((source.scheme(), source.path, config_path), lambda: load(self, config_path))

    def composed(overrides, config, dirs, **options):
        if dirs or GlobalHydra.instance().is_initialized():
            return compose(overrides, config, dirs, **options)
        key = (module.conf_dir(), config, tuple(overrides), tuple(options.items()))
        return remember(key, lambda: compose(overrides, config, dirs, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", loaded)
        patch.setattr(module, "_compose", composed)
        yield load, compose


@pytest.fixture
def hydra_reads_again(hydra_reads_once, monkeypatch):
    """Compositions as outside tests: each one reads all of its cards."""
    load, compose = hydra_reads_once
    monkeypatch.setattr("hydra._internal.config_repository.ConfigRepository.load_config", load)
    monkeypatch.setattr("mmrnn.config.compose._compose", compose)


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
