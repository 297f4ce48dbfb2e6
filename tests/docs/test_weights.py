"""docs/weights.md: its Python runs, its commands exist."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "weights.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, re.S))
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {})


def test_commands_are_those_of_the_command_line():
    from mmrnn.cli.main import VERBS

    words = re.findall(r"^mmrnn (\w+)", TEXT, re.M)
    assert set(words) == {"convert", "train", "ask"}
    assert set(words) <= set(VERBS)
