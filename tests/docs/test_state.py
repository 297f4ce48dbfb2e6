"""docs/state.md: its table is that of the presets, its commands and its code run."""

import io
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import two_turns
from docs_prompts import read_card
from PIL import Image

import mmrnn
from mmrnn.checkpoints.save import save
from mmrnn.cli.main import main
from mmrnn.cli.show import size
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from tests.inference.scripted import assistant

PAGE = (Path(__file__).parents[2] / "docs" / "state.md").read_text(encoding="utf-8")
PRESETS = ("visualrwkv5_3b", "visualrwkv6_1b6", "visualrwkv6_7b", "visualrwkv7_1b5")
PRESETS += ("vila15_3b", "vila15_8b", "llava15_7b")
LENGTHS = (1024, 8192, 24576)


def state_bytes(preset):
    """Bytes of the state in bf16: of one sample, and of each of its positions."""
    text = (conf_dir() / "model" / f"{preset}.yaml").read_text(encoding="utf-8")
    card = read_card("backbone", re.search(r"/backbone: (\w+)", text)[1])
    with torch.device("meta"):
        backbone = instantiate({**card, "depth": 1}).bfloat16()  # the states of all blocks have one size
    [layer] = backbone.state(1).layers
    if backbone.recurrent:
        return card["depth"] * sum(value.nbytes for value in layer.values()), 0
    return 0, card["depth"] * sum(cache.element_size() * cache.shape[1] * cache.shape[3] for cache in layer.values())


def size_table():
    head = " | ".join(f"after {length:,} positions" for length in LENGTHS)
    rows = [f"| model | {head} |", "|---" * (len(LENGTHS) + 1) + "|"]
    for preset in PRESETS:
        fixed, each = state_bytes(preset)
        cells = [size(fixed + each * length).partition(" (")[0] for length in LENGTHS]
        rows.append(f"| `{preset}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def test_the_table_of_sizes_is_computed():
    table = size_table()
    assert f"<!-- sizes -->\n{table}\n<!-- /sizes -->" in PAGE, f"the table should read\n{table}"


def commands():
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines]


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder with a run and the images of the page."""
    monkeypatch.chdir(tmp_path)
    cfg = plain(compose("model=visualrwkv6_tiny", "out=null"))
    save(assistant("visualrwkv6_tiny").model, tmp_path / "runs" / "one", config=cfg)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "other.jpg", "photos/a.png", "photos/b.png"):
        Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(name)
    return tmp_path


@pytest.mark.parametrize("command", [words for words in commands() if words[0] == "show"], ids=" ".join)
def test_sizes_are_shown(command, capsys):
    assert main(command) in (0, None)
    preset = command[1].removeprefix("model=")
    assert preset in PRESETS
    assert "state: " in capsys.readouterr().out


def test_every_command_runs(folder, capsys, monkeypatch):
    [lines] = blocks("text")
    asked = [words for words in commands() if words[0] in ("ask", "chat")]
    assert len(asked) + 2 == len(commands())
    for words in asked:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        assert main(words) == 0, words
        out, err = capsys.readouterr()
        assert out
        assert not err
    assert (folder / "chat.safetensors").exists()


def test_the_code_runs(folder, capsys):
    talk, watch = blocks("python")
    used = {}
    exec(talk, used)
    chat = used["chat"]
    assert [len(each.turns) for each in (chat, used["other"])] == [2, 6]
    assert isinstance(used["assistant"], type(mmrnn.load("runs/one")))
    assert capsys.readouterr().out
    write_film("film.mp4")
    used["assistant"] = assistant("visualrwkv6_tiny", "prompt=first")
    exec(watch, used)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()] == ["4"]
    assert used["stream"].frames == 5
    assert len(used["chat"].turns) == 4


def write_film(path):
    """Film of two seconds."""
    with pytest.importorskip("av").open(path, "w") as film:
        stream = film.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(8):
            frame = sys.modules["av"].VideoFrame.from_image(Image.new("RGB", (32, 32), (30 * number, 0, 0)))
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def test_two_turns_are_counted(folder, capsys):
    assert "tools/two_turns.py" in PAGE
    two_turns.main(["runs/one", "--count", "3"])
    names = re.findall(r"^([a-z ]+): \d of 3 ", capsys.readouterr().out, re.M)
    assert names == ["alone", "appended", "anew", "appended only", "anew only"]
