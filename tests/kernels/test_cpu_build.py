"""The native backend: how it is built and kept, and what happens where it cannot be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmrnn_kernels import wkv6
from mmrnn_kernels.common.native import build
from mmrnn_kernels.wkv6 import cpu

KERNELS = Path(__file__).parents[2] / "kernels"

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, build.COMPILERS)), reason=f"no C++ compiler ({', '.join(build.COMPILERS)})"
)


@pytest.fixture
def unbuilt():
    """Nothing is loaded yet, and what a test loads is forgotten."""
    build.load_or_reason.cache_clear()
    build.native_function.cache_clear()
    yield
    build.load_or_reason.cache_clear()
    build.native_function.cache_clear()


@pytest.fixture
def folder(unbuilt, monkeypatch, tmp_path):
    """The cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mmrnn"


def single(inputs):
    return [x.float() for x in inputs]


def spy(monkeypatch):
    """The commands that are run."""
    commands, plain = [], build.run
    monkeypatch.setattr(build, "run", lambda command: commands.append(command) or plain(command))
    return commands


def builds(commands):
    return sum("-E" not in command for command in commands)


def test_built_once_and_kept(folder, monkeypatch):
    commands = spy(monkeypatch)
    assert build.unavailable_reason(cpu.SOURCE) is None
    assert builds(commands) == 1
    assert [path.suffix for path in folder.iterdir()] == [".so"]
    build.load_or_reason.cache_clear()
    assert build.unavailable_reason(cpu.SOURCE) is None
    assert builds(commands) == 1


@pytest.mark.parametrize(
    "damage", ["half", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("other", "empty"))]
)
def test_a_damaged_file_is_built_again(folder, monkeypatch, damage):
    assert build.unavailable_reason(cpu.SOURCE) is None
    (path,) = folder.iterdir()
    good = path.read_bytes()
    path.unlink()  # what is loaded keeps its own bytes
    path.write_bytes({"half": good[: len(good) // 2], "other": b"no library" * 1000, "empty": b""}[damage])
    commands = spy(monkeypatch)
    build.load_or_reason.cache_clear()
    build.native_function.cache_clear()
    assert build.unavailable_reason(cpu.SOURCE) is None
    assert builds(commands) == 1
    x = torch.ones(1, 1, 1, 4)
    assert wkv6(x, x, x, x, x[0, 0], backend="cpu")[0].tolist() == [[[[4.0] * 4]]]


def test_a_file_that_does_not_load_is_built_again(folder, monkeypatch):
    key = "0123"
    monkeypatch.setattr(build, "cache_key", lambda *_: key)
    folder.mkdir()
    fake = folder / "fake"
    fake.write_bytes(b"no library, but just what its name says")
    fake.rename(folder / build.library_name(key, fake))
    assert build.unavailable_reason(cpu.SOURCE) is None
    assert len([*folder.iterdir()]) == 2


def test_no_folder_to_keep_it_in(unbuilt, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build.unavailable_reason(cpu.SOURCE) is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_openmp_in_one_thread(folder, draw, run, monkeypatch):
    inputs, grads = draw(wkv6, 2, 40, 2, 16, 16)
    inputs, plain = single(inputs), build.run

    def refuse(command):
        if "-fopenmp" in command:
            raise subprocess.CalledProcessError(1, command, stderr=b"unsupported option '-fopenmp'")
        return plain(command)

    threaded = run(wkv6, inputs, grads, backend="cpu")
    build.load_or_reason.cache_clear()
    build.native_function.cache_clear()
    monkeypatch.setattr(build, "run", refuse)
    alone = run(wkv6, inputs, grads, backend="cpu")
    assert len([*folder.iterdir()]) == 2
    assert all(torch.equal(threaded[name], alone[name]) for name in alone)


def test_no_compiler(unbuilt, draw, monkeypatch):
    inputs = single(draw(wkv6, 1, 20, 1, 8, 8)[0])
    truth = wkv6(*inputs, backend="chunked")
    asked = []
    monkeypatch.setattr(build.shutil, "which", lambda name: asked.append(name))
    assert all(map(torch.equal, wkv6(*inputs), truth))
    message = r"^wkv6: backend 'cpu' cannot run here: no C\+\+ compiler was found \(c\+\+, g\+\+, clang\+\+\), install"
    with pytest.raises(RuntimeError, match=message):
        wkv6(*inputs, backend="cpu")
    assert len(asked) == 3, "the answer is kept"


def test_a_compiler_that_fails(folder, monkeypatch, tmp_path):
    source = tmp_path / "source" / "broken.cpp"
    source.parent.mkdir()
    source.write_text("int broken( {")
    monkeypatch.setattr(build, "COMPILERS", build.COMPILERS[:1])
    reason = build.unavailable_reason(source)
    assert "c++ could not build broken.cpp: " in reason
    assert "broken.cpp:1" in reason
    assert "\n" not in reason
    assert [*folder.iterdir()] == []
    with pytest.raises(build.BuildError, match="could not build"):
        build.load_library(source)


def process(script, folder, **options):
    environment = os.environ | {"PYTHONPATH": str(KERNELS), "OMP_NUM_THREADS": "1", **options}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=folder, **pipes)


RACE = """
import torch
from mmrnn_kernels import wkv6
x = torch.ones(1, 1, 1, 4)
assert wkv6(x, x, x, x, x[0, 0], backend="cpu")[0].tolist() == [[[[4.0] * 4]]]
"""


@pytest.mark.slow
def test_two_processes_build_at_once(tmp_path):
    both = [process(RACE, tmp_path, XDG_CACHE_HOME=str(tmp_path)) for _ in range(2)]
    for one in both:
        _, errors = one.communicate(timeout=120)
        assert one.returncode == 0, errors
        assert errors == ""
    assert {path.suffix for path in (tmp_path / "mmrnn").iterdir()} == {".so"}
