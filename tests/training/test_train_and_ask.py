"""On the command line a tiny model of each design learns what is on an image, and then says it."""

import json

import pytest
from PIL import Image

from mmrnn.cli.main import main
from mmrnn.config.compose import compose, conf_dir

TINY = sorted(path.stem for path in (conf_dir() / "model").glob("*_tiny.yaml"))
QUICK = ("blip2_t5_tiny", "flamingo_tiny", "visualrwkv6_tiny")
"""One of each kind of backbone; the default run takes these."""
QUESTION, ANSWER = "what is this?", "a red wall"
SHORT = ("stage.instruct.lr=0.01", "stage.instruct.steps=60", "schedule.min_lr=0.001", "schedule.warmup=0")


@pytest.fixture
def records(tmp_path):
    """One image, one question and its answer, in LLaVA's form."""
    Image.new("RGB", (40, 24), "red").save(tmp_path / "wall.png")
    turns = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": ANSWER}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": "1", "image": "wall.png", "conversations": turns}]))
    return tmp_path


def train(folder, *words):
    short = ("log_every=60", "evaluate.samples=0", "data=llava", f"data.file={folder}/data.json", f"out={folder}/run")
    assert main(["train", *words, *short]) == 0


def ask(folder, capsys):
    capsys.readouterr()
    code = main(["ask", str(folder / "wall.png"), QUESTION, "--run", str(folder / "run"), "--max-new-tokens", "24"])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in TINY])
def test_a_tiny_model_learns_and_answers(name, records, capsys):
    # LLaVA's first release was asked with another text than it was trained with: too far for sixty steps on one sample.
    asked_as_trained = ["prompt.asking=null"] if compose(f"model={name}").prompt.get("asking") else []
    train(records, f"model={name}", *SHORT, *asked_as_trained, "stage.instruct.batch_size=1")
    assert ask(records, capsys) == (0, f"{ANSWER}\n", "")


def test_states_are_told_apart(tmp_path, capsys):
    """PaLM-E without an image: two states, two answers, from records to the reply."""
    states = {
        "open": [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]],
        "shut": [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]],
    }
    records = []
    for answer, state in states.items():
        turns = [{"from": "human", "value": "<state> well?"}, {"from": "gpt", "value": answer}]
        records.append({"id": answer, "observations": {"state": state}, "conversations": turns})
        (tmp_path / f"{answer}.json").write_text(json.dumps({"state": state}))
    (tmp_path / "data.json").write_text(json.dumps(records))
    train(tmp_path, "model=palm_e_tiny", *SHORT, "stage.instruct.batch_size=2")
    run = ("--run", str(tmp_path / "run"))
    for answer in states:
        capsys.readouterr()
        assert main(["ask", "<state> well?", "--observations", str(tmp_path / f"{answer}.json"), *run]) == 0
        assert capsys.readouterr().out == f"{answer}\n"
    (tmp_path / "bad.json").write_text('{"state": [[1, 2]]}')
    (tmp_path / "image.json").write_bytes(b"\x89PNG")
    assert main(["ask", "<state>", *run, "--observations"]) == 2
    assert "--observations: expected a value behind it" in capsys.readouterr().err
    for file, words, message in (
        ("image.json", "<state>", "image.json is not JSON"),
        ("open.json", "well?", "0 tags <state> for 1 observations"),
        ("none.json", "<state>", "cannot be read: No such file or directory"),
        ("data.json", "<state>", "observations must be an object"),
        ("bad.json", "<state>", "an object has 2 features, but features=4"),
    ):
        assert main(["ask", words, "--observations", str(tmp_path / file), *run]) == 2
        assert message in capsys.readouterr().err


def test_what_has_no_language_model_says_so(records, capsys):
    tiny = ("encoder=eva_tiny", "connector=qformer_text_tiny", "objective=blip2_tiny", "tokenizer=demo")
    more = json.loads((records / "data.json").read_text()) * 2
    (records / "data.json").write_text(json.dumps([one | {"id": str(number)} for number, one in enumerate(more)]))
    train(
        records, "model=blip2_stage1", *tiny, "evaluate.samples=9", "stage.bridge.steps=2", "stage.bridge.batch_size=2"
    )
    code, output, fault = ask(records, capsys)
    assert (code, output) == (2, "")
    assert fault == "mmrnn: this model has no language model (NoBackbone); choose one with backbone=NAME\n"
