"""What the Triton kernels compile to in their usual form: shared memory, spills and instructions, held to bounds."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHARED = 48 * 1024
FORWARD, BACKWARD = 190, 600
"""Instructions of a warp, times warps, per position and head, on sm_90."""


@cache
def rows(target):
    """In a process of its own: what the tests check types with does not compile."""
    command = [sys.executable, "benchmarks/kernels.py", "--json", target]
    env = os.environ | {"PYTHONPATH": str(ROOT / "kernels")}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_shared_memory(target):
    assert not {row["line"] for row in rows(target) if row["shared"] > SHARED}


def test_instructions():
    count = {row["kernel"]: row["instructions"] for row in rows("sm_90")}
    assert count["forward"] <= FORWARD
    assert count["states"] + count["backward"] <= BACKWARD


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_the_forward_pass_spills_nothing(target):
    assert not {row["line"] for row in rows(target) if row["spilled"] and row["kernel"] != "backward"}


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_the_page_has_the_table(target):
    page = (ROOT / "docs" / "kernels.md").read_text()
    if f"Triton {triton.__version__}." not in page:
        pytest.skip("the table was made with another version of Triton")
    assert all(row["line"] in page for row in rows(target))
