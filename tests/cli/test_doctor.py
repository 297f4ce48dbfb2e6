"""`mmrnn doctor` says in a line each what a machine lacks, and what mends it."""

import re
import socket
import sys
from importlib.metadata import requires, version

import pytest

from mmrnn.cli import doctor
from mmrnn.cli.main import main
from mmrnn.io import requirements
from mmrnn_kernels.common.native import build
from mmrnn_kernels.common.triton import availability

CLOSED = "http://127.0.0.1:9"
"""Address at which nothing answers."""


@pytest.fixture
def lines(monkeypatch, capsys):
    """Run it; the lines by what they are about."""
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def run():
        code = main(["doctor"])
        found = [
            line.split(maxsplit=1) for line in capsys.readouterr().out.replace("native code", "native").splitlines()
        ]
        assert len({about for about, _ in found}) >= 3
        return code, dict(found)

    return run


@pytest.fixture
def metadata(monkeypatch):
    """Give mmrnn these requirements, and packages these versions; everything else stays as it is installed."""

    def give(*needed, **versions):
        monkeypatch.setattr(requirements, "requires", lambda name: needed if name == "mmrnn" else requires(name))
        monkeypatch.setattr(requirements, "version", lambda name: versions.get(name) or version(name))

    return give


def test_a_machine_without_compiler_triton_and_network(lines, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "triton", None)
    for cached in (build.load_or_reason, availability.missing_reason):
        cached.cache_clear()
    try:
        code, found = lines()
    finally:
        monkeypatch.undo()
        for cached in (build.load_or_reason, availability.missing_reason):
            cached.cache_clear()
    assert code == 1
    assert found["native"].endswith("no C++ compiler was found (c++, g++, clang++), install one of them")
    assert "`pip install triton`" in found["triton"]
    assert f"{CLOSED} does not answer" in found["hub"]
    assert "name weights by a path on this disk" in found["hub"]


def test_a_package_that_is_missing_or_has_a_wrong_version(metadata):
    metadata("timm>=1.0.21,<2", "absent-one>=1", "torch>=2", timm="1.0.15")
    found = [tuple(line) for line in doctor.packages()]
    assert found == [
        ("package", "mmrnn needs timm<2,>=1.0.21, there is timm 1.0.15", "pip install 'timm<2,>=1.0.21'"),
        ("package", "mmrnn needs absent-one>=1, there is no absent-one", "pip install 'absent-one>=1'"),
    ]


def test_a_torch_that_torchvision_is_not_made_for(metadata):
    metadata("torch>=1", torch="1.13.0+cpu")
    (line,) = doctor.packages()
    assert re.fullmatch(r"torchvision needs torch\S+, there is torch 1.13.0\+cpu", line.found)
    assert line.cure.startswith("pip install 'torch")


def test_a_package_that_is_missing_is_a_failure(lines, metadata):
    metadata("absent-one>=1")
    code, found = lines()
    assert code == 1
    assert found["package"].endswith("pip install 'absent-one>=1'")


def test_a_machine_without_torch_is_not_asked_for_devices(lines, monkeypatch, metadata):
    metadata("torch>=2")
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert not {"GPU", "processor", "native", "triton"} & set(lines()[1])


def test_extras_that_lack_packages_have_their_line(metadata):
    metadata("torch>=2", "absent-one>=1; extra == 'video'", "torch; extra == 'demo'", "absent-two; extra == 'test'")
    assert [tuple(line) for line in doctor.extras()] == [
        ("extra", "video lacks absent-one", "pip install 'mmrnn[video]'")
    ]
    metadata("torch>=2", "torch>=3; extra == 'video'", torch="2.9.0")
    assert [tuple(line) for line in doctor.extras()] == [
        ("extra", "video needs torch>=3, there is torch 2.9.0", "pip install 'torch>=3'")
    ]
    metadata("torch>=2")
    assert [line.found for line in doctor.extras()] == ["all are installed"]


def test_a_package_of_another_platform_is_not_asked_for(metadata):
    metadata("absent-one; platform_system == 'Nowhere'", "absent-two; extra == 'video' and python_version < '3'")
    assert not list(doctor.packages())
    assert [line.found for line in doctor.extras()] == ["all are installed"]


def test_a_folder_that_is_not_installed_has_no_extras(monkeypatch):
    def absent(name):
        raise requirements.PackageNotFoundError(name)

    monkeypatch.setattr(requirements, "requires", absent)
    assert not list(doctor.packages())
    assert [line.cure for line in doctor.extras()] == ["pip install -e ."]


def test_the_hub_is_not_asked_offline(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("asked"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.hub().found == "not asked"


def test_a_hub_that_answers(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert doctor.hub() == ("hub", f"{address} answers", "")
    monkeypatch.setenv("HF_ENDPOINT", "http://host:port")
    assert "does not answer" in doctor.hub().found
