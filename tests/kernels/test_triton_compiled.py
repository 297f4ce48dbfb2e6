"""The Triton kernels, compiled for real GPUs: shared memory, spills and instructions.

`python tools/bench_kernels.py --all` compiles every size in every type for every target.
"""

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
HEADS = (32, 64, 128)
SIZES = {"wkv5": HEADS, "wkv6": HEADS, "wkv7": HEADS, "selective_scan": (8, 16, 32, 64)}
TARGETS, TYPES = ("sm_80", "sm_90", "gfx942"), ("bf16", "fp16", "fp32")


def rows(*which):
    """In a process of its own: what the tests check types with does not compile."""
    command = [sys.executable, "tools/bench_kernels.py", "--json", *which]
    env = os.environ | {"PYTHONPATH": str(ROOT / "kernels")}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def forms(operator, target):
    """Sizes with types: the largest size in every type, and every other size in a type that turns with the target, so
    that each size is compiled in each type for some target."""
    turn = TARGETS.index(target)
    turning = [(size, TYPES[(turn + place) % 3]) for place, size in enumerate(SIZES[operator][:-1])]
    return [*turning, *((SIZES[operator][-1], type) for type in TYPES)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("operator", SIZES)
def test_nothing_spills_and_shared_memory_is_enough(operator, target):
    chosen = forms(operator, target)
    pairs = [f"{size}:{type}" for size, type in chosen]
    found = rows("--operator", operator, "--target", target, "--forms", *pairs)
    assert {(row["size"], row["type"]) for row in found} == {*chosen}
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
