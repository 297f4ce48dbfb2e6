"""Every form of the Triton kernels, compiled for real GPUs: shared memory, spills and instructions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHARED = 48 * 1024
FORWARD, BACKWARD = 190, 600
"""Instructions of a warp, times warps, per position and head, on sm_90."""
SIZES = {"wkv5": {32, 64, 128}, "wkv6": {32, 64, 128}, "wkv7": {32, 64, 128}, "selective_scan": {8, 16, 32, 64}}


def rows(*which):
    """In a process of its own: what the tests check types with does not compile."""
    command = [sys.executable, "tools/bench_kernels.py", "--all", "--json", *which]
    env = os.environ | {"PYTHONPATH": str(ROOT / "kernels")}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("type", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("operator", SIZES)
def test_nothing_spills_and_shared_memory_is_enough(operator, target, type):
    found = rows("--operator", operator, "--target", target, "--type", type)
    assert {row["size"] for row in found} == SIZES[operator]
    assert not [row["line"] for row in found if row["spilled"]]
    assert not [row["line"] for row in found if row["shared"] > SHARED]


@pytest.mark.parametrize("operator", SIZES)
def test_the_page_has_the_table(operator):
    page = (ROOT / "docs" / "kernels.md").read_text()
    if f"Triton {triton.__version__}." not in page:
        pytest.skip("the table was made with another version of Triton")
    usual = rows("--operator", operator, "--type", "bf16", "--size", "16" if operator == "selective_scan" else "64")
    assert not [row["line"] for row in usual if row["line"] not in page]


def test_instructions():
    found = rows("--operator", "wkv6", "--target", "sm_90", "--type", "bf16", "--size", "64")
    count = {row["kernel"]: row["instructions"] for row in found}
    assert count["chunk_forward"] <= FORWARD
    assert sum(count[name] for name in count if name not in ("chunk_forward", "recurrent_forward")) <= BACKWARD
