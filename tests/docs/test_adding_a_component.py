"""docs/adding_a_component.md works as written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_component.md"
FENCE = re.compile(r"(?:^`(?P<file>\S+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_works(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = []
    for fence in FENCE.finditer(PAGE.read_text()):
        if fence["file"]:
            (tmp_path / fence["file"]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / fence["file"]).write_text(fence["text"])
        elif fence["language"] == "sh":
            printed += [run("-m", *shlex.split(line)) for line in fence["text"].splitlines()]
        else:
            printed.append(run("-c", fence["text"]))
    listed, shown, built = printed
    assert "low_rank_8" in listed
    assert "Two linear maps through a few dimensions" in listed
    assert "LowRank" in shown
    assert "out_features=64" in built
