"""docs/weights.md: its table matches the formats; its Python runs."""

import re
from pathlib import Path

import pytest

from mmrnn.weights.registry import FORMATS

PAGE = Path(__file__).parents[2] / "docs" / "weights.md"
TEXT = PAGE.read_text(encoding="utf-8")


def table() -> str:
    rows = ["| part | opens | both ways |", "|---|---|---|"]
    for part in dict.fromkeys(form.part_name for form in FORMATS):
        forms = [form for form in FORMATS if form.part_name == part]
        names = dict.fromkeys(form.name for form in forms)
        written = dict.fromkeys(form.name for form in forms if form.writable)
        rows.append(
            f"| `{part}` | {', '.join(f'`{n}`' for n in names)} | {', '.join(f'`{n}`' for n in written) or '-'} |"
        )
    return "\n".join(rows)


def test_the_table_of_formats_is_that_of_the_code():
    assert f"<!-- formats -->\n{table()}\n<!-- /formats -->" in TEXT, f"the table should read\n{table()}"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, re.S))
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {})


def test_commands_are_those_of_the_command_line():
    from mmrnn.cli.main import VERBS

    words = re.findall(r"^mmrnn (\w+)", TEXT, re.M)
    assert set(words) == {"convert", "train", "ask"}
    assert set(words) <= set(VERBS)
