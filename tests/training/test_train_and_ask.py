"""On the command line a tiny model of each design learns what is on a picture, and then says it."""

import json

import pytest
from PIL import Image

from mmrnn.cli import main
from mmrnn.config import conf_dir

TINY = sorted(path.stem for path in (conf_dir() / "model").glob("*_tiny.yaml"))
QUICK = ("blip2_t5_tiny", "flamingo_tiny", "visualrwkv6_tiny")
"""One of each kind of backbone; the default run takes these."""
QUESTION, ANSWER = "what is this?", "a red wall"


@pytest.fixture
def records(tmp_path):
    """One picture, one question and its answer, in LLaVA's form."""
    Image.new("RGB", (40, 24), "red").save(tmp_path / "wall.png")
    said = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": ANSWER}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": "1", "image": "wall.png", "conversations": said}]))
    return tmp_path


def train(folder, *words):
    short = ("log=60", "evaluate.samples=0", "data=llava", f"data.file={folder}/data.json", f"out={folder}/run")
    assert main(["train", *words, *short]) == 0


def ask(folder, capsys):
    capsys.readouterr()
    code = main(["ask", str(folder / "wall.png"), QUESTION, "--run", str(folder / "run"), "--limit", "24"])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in TINY])
def test_a_tiny_model_learns_and_answers(name, records, capsys):
    rates = ("lr=0.01", "lr_final=0.001", "warmup=0", "steps=60", "batch=1")
    train(records, f"model={name}", *(f"stage.instruct.{rate}" for rate in rates))
    assert ask(records, capsys) == (0, f"{ANSWER}\n", "")


def test_what_has_no_language_model_says_so(records, capsys):
    tiny = ("encoder=eva_tiny", "connector=qformer_text_tiny", "objective=blip2_tiny", "tokenizer=small")
    more = json.loads((records / "data.json").read_text()) * 2
    (records / "data.json").write_text(json.dumps([one | {"id": str(number)} for number, one in enumerate(more)]))
    train(records, "model=blip2_stage1", *tiny, "evaluate.samples=9", "stage.bridge.steps=2", "stage.bridge.batch=2")
    code, said, fault = ask(records, capsys)
    assert (code, said) == (2, "")
    assert fault == "mmrnn: there is no language model here to read or say anything; choose one with backbone=NAME\n"
