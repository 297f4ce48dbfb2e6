"""`mmrnn doctor` says in a line each what a machine lacks, and what mends it."""

import socket

import pytest

from mmrnn.cli import doctor
from mmrnn.cli.main import main
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
        assert len({about for about, _ in found}) >= 7
        return code, dict(found)

    return run


def test_a_machine_without_compiler_triton_and_network(lines, monkeypatch):
    monkeypatch.setattr(build, "COMPILERS", ("no-compiler",))
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    for cached in (build.load_or_reason, availability.missing_reason):
        cached.cache_clear()
    try:
        code, found = lines()
    finally:
        monkeypatch.undo()
        for cached in (build.load_or_reason, availability.missing_reason):
            cached.cache_clear()
    assert code == 1
    assert found["native"].endswith("no C++ compiler was found (no-compiler), install one of them")
    assert "`pip install triton`" in found["triton"]
    assert f"{CLOSED} does not answer" in found["hub"]
    assert "name weights by a path on this disk" in found["hub"]


def test_extras_that_lack_packages_have_their_line(lines, monkeypatch):
    needed = ["torch>=2", "absent-one>=1; extra == 'video'", "torch; extra == 'demo'", "absent-two; extra == 'test'"]
    monkeypatch.setattr(doctor, "requires", lambda name: needed)
    assert lines()[1]["extra"] == "video lacks absent-one: pip install 'mmrnn[video]'"
    monkeypatch.setattr(doctor, "requires", lambda name: needed[:1])
    assert lines()[1]["extras"] == "all are installed"


def test_a_folder_that_is_not_installed_has_no_extras(lines, monkeypatch):
    def absent(name):
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", absent)
    assert lines()[1]["extras"].endswith("pip install -e .")


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
