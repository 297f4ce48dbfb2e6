"""docs/data.md: its table names the readers there are; its commands compose, those that make data run."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import mmrnn
from mmrnn.cli.main import main
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.recipe_stages import route_overrides
from mmrnn.config.validate import check
from tests.data.readers.shards import dialogue, image_bytes, write_tar

FILE = Path(__file__).parents[2] / "docs" / "data.md"
PAGE = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""


def commands(verb="train"):
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith(f"mmrnn {verb} ")]


def test_every_reader_is_in_the_table():
    named = set(re.findall(r"^\| `data=(\w+)` \|", PAGE, re.M))
    cards = {path.stem for path in (conf_dir() / "data").glob("*.yaml")}
    others = {"demo", "mix", "questions", "sentences", "study"}
    assert named == {card for card in cards if card not in others and not card.startswith("mix_")}


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_commands_fit(command):
    check(compose(*route_overrides(command)))


def test_there_are_commands():
    assert len(commands()) > 5


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Files that the page names: `mix.jsonl`, `images`, `pairs.tar`, and a model in `runs`."""
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    replies = {"red": "A red wall.", "blue": "A blue wall.", "small": "Nothing.", "green": "一面绿色的墙，很大。"}
    colors = {"small": "red"}
    for name in replies:
        side = 400 if name == "small" else 450
        Image.new("RGB", (side, side), colors.get(name, name)).save(tmp_path / "images" / f"{name}.png")
    records = [dialogue(reply, "<image>\n?", id=name, image=f"{name}.png") for name, reply in replies.items()]
    (tmp_path / "mix.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [*records, records[0]]))
    write_tar(tmp_path / "pairs.tar", [("a.png", image_bytes("red")), ("a.txt", "red")])
    torch.manual_seed(0)
    mmrnn.save(mmrnn.build(mmrnn.compose("model=visualrwkv6_tiny", "tokenizer=demo")), tmp_path / "runs" / "one")
    return tmp_path


def test_the_commands_that_make_data_run(data, capsys):
    outs = {}
    for command in commands("data"):
        assert main(["data", *command]) in (0, 1)  # 1: an untrained model may reply nothing
        [*_, last] = capsys.readouterr().out.splitlines()
        outs[command[1]] = last
    kept = {name: re.search(r": (\d+) of (\d+)", line).groups() for name, line in outs.items()}
    assert kept["large.jsonl"] == ("3", "5")
    assert kept["chinese.jsonl"] == ("1", "5")
    assert kept["few.jsonl"] == ("2", "3")
    assert kept["captions.jsonl"][1] == "4"
    assert kept["again.jsonl"][1] == "1"
