"""Scripts with transformers' own models, run where flash-linear-attention cannot be imported."""

import subprocess
import sys
from pathlib import Path

# transformers takes Triton functions of `fla` when it is imported; on a CPU it must take its own.
PROGRAM = """
import runpy, sys
sys.modules["fla"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_peer(script: Path, output: Path) -> None:
    """Run a script that writes its outputs to a path."""
    command = [sys.executable, "-c", PROGRAM, str(script), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
