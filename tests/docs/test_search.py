"""docs/search.md: its commands and its program run."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import mmrnn
from mmrnn.cli.main import main
from mmrnn.connectors import TextQFormer
from mmrnn.training import BLIP2Pretraining
from mmrnn.weights.export import rename

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")


PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
TINY = ("encoder=eva_tiny", "connector=qformer_text_tiny", "objective=blip2_tiny", "tokenizer=demo")


def commands():
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the runs of the commands, and images."""
    made = tmp_path_factory.mktemp("page")
    short = ("data.scenes=16", "evaluate.samples=0", "workers=0")
    for train, stage in zip([one for one in commands() if one[0] == "train"], ("bridge", "instruct"), strict=True):
        words = [word.replace("runs/", f"{made}/runs/") for word in train]
        assert main([*words, *short, f"stage.{stage}.batch_size=4"]) == 0
    (made / "photos").mkdir()
    for name, color in (("dog", "brown"), ("cat", "black")):
        Image.new("RGB", (30, 20), color).save(made / "photos" / f"{name}.jpg")
    return made


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "search"], ids=" ".join)
def test_commands(words, capsys):
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("photos/" in line for line in lines)


def test_the_program():
    program, _, _ = PROGRAMS
    names = {}
    exec(program, names)
    assert (names["images"].shape, names["texts"].shape) == ((2, 8, 16), (3, 1, 16))
    assert names["scores"].shape == (3, 2)
    assert names["scores"].abs().max() <= 1 + 1e-5


def test_published_weights():
    """Files of LAVIS in miniature, in the place of the published ones."""
    torch.manual_seed(0)
    made = mmrnn.build(mmrnn.compose("model=blip2_stage1", *TINY))
    heads = BLIP2Pretraining(made, width=16, begin=0)
    tensors = rename(made.modalities["image"].connector.state_dict(), TextQFormer, "lavis")
    tensors |= rename(heads.state_dict(), BLIP2Pretraining, "lavis")
    torch.save({"model": tensors}, "blip2_pretrained.pth")
    _, program, _ = PROGRAMS
    words = ", ".join(f'"{word}"' for word in TINY)
    program = program.replace('f"weights.encoder=[{tower},{stage1}]", ', "")
    program = program.replace('"tokenizer.path=bert-base-uncased/tokenizer.json"', words)
    program = program.replace("BLIP2Pretraining(model)", "BLIP2Pretraining(model, width=16, begin=0)")
    exec(program, {})
    found = mmrnn.load("models/blip2").model
    expected = made.modalities["image"].connector.state_dict()
    assert all(
        torch.equal(value, expected[name]) for name, value in found.modalities["image"].connector.state_dict().items()
    )
    assert all(torch.equal(value, heads.state_dict()[name]) for name, value in found.embedder.state_dict().items())


def test_recall(capsys):
    exec(PROGRAMS[2].replace("scenes=500", "scenes=5"), {})
    [words] = [words for words in commands() if words[0] == "eval"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("retrieval: text_to_image/recall@1 ")
    assert "(5 questions about 5 images)" in out
    assert "image_to_text/recall@10 1\n" in out
