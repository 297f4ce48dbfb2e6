"""`tools/gpu_check.py`, dry: with torch, Triton, einops and jaxtyping alone, and what it writes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import gpu_check
import pytest
import torch
from gpu_checks.check import difference

from mmrnn.bench.timing import Row

ROOT = Path(__file__).parents[2]

ALONE = """
import runpy, sys
from importlib.machinery import PathFinder

TORCH = "filelock fsspec functorch jinja2 markupsafe mpmath networkx numpy sympy torch torchgen typing_extensions"
KNOWN = {*sys.stdlib_module_names, *TORCH.split(), "triton", "einops", "jaxtyping", "wadler_lindig"}
OURS = {"gpu_checks", "mmrnn", "mmrnn_kernels"}


class Alone(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        top = name.partition(".")[0]
        return super().find_spec(name, *rest) if top in KNOWN | OURS or top.startswith("_sysconfigdata") else None


sys.meta_path = [x for x in sys.meta_path if x is not PathFinder and "editable" not in repr(x)]
sys.meta_path.append(Alone)
for absent in ("hydra", "omegaconf", "open_clip", "timm", "transformers", "rich", "peft", "safetensors", "pytest"):
    try:
        __import__(absent)
    except ImportError:
        continue
    raise SystemExit(f"{absent} is there")
sys.argv = ["gpu_check", *sys.argv[2:]]
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.fixture
def alone(tmp_path):
    """Run the command where nothing else can be imported."""

    def run(*words):
        command = [sys.executable, "-I", "-c", ALONE, "", str(ROOT / "tools" / "gpu_check.py"), *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        path = tmp_path / "gpu_check.json"
        return done, json.loads(path.read_text()) if path.exists() else None

    return run


def test_checks_run_with_nothing_else_installed(alone):
    names = ("operators/lerp/rows/fp32", "backbones/GLM/rows/fp32", "training/RWKV7/fp32")
    done, found = alone("--dry-run", "--no-bench", "--only", *names)
    assert done.returncode == 0, done.stderr + done.stdout
    assert [check["name"] for check in found["checks"]] == [*names]
    assert not found["failures"]
    assert found["dry_run"]
    assert found["device"] == "CPU"
    assert all(0 <= one["error"] <= one["bound"] for check in found["checks"] for one in check["differences"])
    assert all(check["differences"] for check in found["checks"])


@pytest.mark.slow
def test_all_of_it_with_nothing_else_installed(alone):
    done, found = alone("--dry-run", "--seconds", "600")
    assert done.returncode == 0, done.stderr + done.stdout
    assert {row["part"] for row in found["bench"]["rows"]} == {*gpu_check.PARTS} - {"tower"}
    skipped = {note.split(":")[0] for note in found["bench"]["skipped"]}
    assert skipped == {"timm", "fla", "mmrnn triton"}


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run the command in this process."""
    monkeypatch.chdir(tmp_path)
    return gpu_check.main


def test_out_of_time_is_a_failure(command):
    assert command(["--dry-run", "--no-bench", "--only", "operators/relu_square/*", "--seconds", "0"]) == 1
    failures = json.loads(Path("gpu_check.json").read_text())["failures"]
    assert len(failures) == 3
    assert failures[0] == "operators/relu_square/rows/fp32: not run: out of time"


def test_a_check_that_takes_too_long_is_stopped(command, monkeypatch):
    monkeypatch.setattr(gpu_check, "all_checks", lambda: [gpu_check.Check("a/slow", lambda device: time.sleep(60))])
    begin = time.monotonic()
    assert command(["--dry-run", "--no-bench", "--seconds", "0.2"]) == 1
    assert time.monotonic() - begin < 30
    assert json.loads(Path("gpu_check.json").read_text())["failures"] == ["a/slow: TimeoutError: out of time"]


def test_benchmarks_are_written_and_a_fault_does_not_hide_the_others(command, monkeypatch):
    def broken(config):
        yield Row("decode", "case", "mmrnn RWKV-6", 0.5, {})
        raise RuntimeError("illegal memory access")

    monkeypatch.setattr(gpu_check, "PARTS", {**dict.fromkeys(gpu_check.PARTS, lambda config: []), "decode": broken})
    assert command(["--dry-run", "--only", "operators/relu_square/rows/fp32"]) == 1
    found = json.loads(Path("gpu_check.json").read_text())
    assert [row["seconds"] for row in found["bench"]["rows"]] == [0.5]
    assert found["failures"] == ["bench decode: RuntimeError: illegal memory access"]


def test_every_benchmark_has_its_turn():
    assert sorted(gpu_check.BENCH_ORDER) == sorted(gpu_check.PARTS)


def test_what_a_check_raises_and_what_is_not_finite_is_written(command, monkeypatch):
    bad = gpu_check.Check("a/bad", lambda device: [difference("x", torch.tensor(torch.nan), torch.ones(()), 1.0)])
    monkeypatch.setattr(gpu_check, "all_checks", lambda: [gpu_check.Check("a/none", lambda device: 1 / 0), bad])
    assert command(["--dry-run", "--no-bench"]) == 1
    found = json.loads(Path("gpu_check.json").read_text())
    assert found["failures"] == ["a/none: ZeroDivisionError: division by zero", "a/bad: x: inf > 1.0e+00"]
    assert found["checks"][1]["differences"] == [{"name": "x", "error": None, "bound": 1.0}]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(command, capsys):
    assert command([]) == 2
    assert capsys.readouterr().err == "gpu_check: torch sees no CUDA device; --dry-run runs on the CPU\n"
    assert not Path("gpu_check.json").exists()


def test_an_unknown_check_is_refused(command, capsys):
    assert command(["--dry-run", "--only", "operators/wkv9/*"]) == 2
    assert capsys.readouterr().err == "gpu_check: no check is called operators/wkv9/*; --list names all\n"
