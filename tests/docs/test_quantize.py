"""docs/quantize.md: its commands name cards and knobs that exist, its table says their sizes, its Python runs."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from mmrnn.cli.convert import parser
from mmrnn.config.compose import compose, conf_dir
from mmrnn.layers.quantized import Int4Linear, Int8Linear

TEXT = (Path(__file__).parents[2] / "docs" / "quantize.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, re.S))
def test_python_runs(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/quantize.md", "exec"), {})
    assert capsys.readouterr().out == "torch.int8\n"


def test_the_commands_are_those_of_the_command_line():
    lines = [shlex.split(line, comments=True) for line in re.findall(r"^mmrnn .*", TEXT, re.M)]
    converted = [parser().parse(words[2:]) for words in lines if words[1] == "convert"]
    assert [options.source for options in converted] == ["runs/one"] * 2
    cards = [compose(*options.overrides).quantize for options in converted]
    assert [card.get("awq_samples") for card in cards] == [None, 64]


def test_the_table_has_every_card_with_its_bits():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", TEXT, re.M))
    assert rows.keys() == {path.stem for path in (conf_dir() / "quantize").glob("*.yaml")}
    assert rows["int8"].strip() == "8"
    sizes = {}
    for group_size in (32, 64, 128):
        layer = Int4Linear(1024, 16, bias=False, group_size=group_size, awq=False)
        sizes[group_size] = 8 * sum(value.nbytes for value in layer.state_dict().values()) / (1024 * 16)
    assert rows["int4"].strip() == f"{sizes[32]:g} (`group_size=32`), {sizes[64]:g} (64), {sizes[128]:g} (128)"
    assert Int8Linear(8, 8, bias=False).codes.dtype == torch.int8
