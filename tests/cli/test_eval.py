"""`mmrnn eval`: benchmarks are put to models, and mistakes end in one sentence."""

import json
import shutil

import pytest
import torch

import mmrnn
from mmrnn.cli.main import main
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.tree import plain
from mmrnn.evaluation.tasks.answer_lines import ANSWERS
from mmrnn.evaluation.tasks.results import RESULT
from mmrnn.io import jsonl
from mmrnn.training.run import train
from tests.evaluation import java
from tests.evaluation.tasks import official_files

TASKS = sorted(path.stem for path in (conf_dir() / "task").glob("*.yaml") if not path.stem.endswith("retrieval"))
SHORT = ("task.max_new_tokens=4", "device=cpu")
TRAINED = (
    *("model=visualrwkv6_tiny", "encoder=patch_tiny", "data.scenes=12", "data.rounds=4", "device=cpu"),
    *("stage.instruct.batch_size=4", "stage.instruct.steps=2", "evaluate.samples=0"),
)


@pytest.fixture
def root(tmp_path):
    for name in ("gqa", "pope", "files"):
        getattr(official_files, name)(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "mine"
    cfg = plain(compose("model=visualrwkv6_tiny", "out=null"))
    mmrnn.save(mmrnn.build(cfg), folder, config=cfg)
    return folder


@pytest.fixture
def evaluate(capsys, model, root, tmp_path):
    def call(*words):
        out = [] if any(word.startswith("out=") for word in words) else [f"out={tmp_path / 'out'}"]
        code = main(["eval", f"run={model}", f"root={root}", *SHORT, *out, *words])
        return code, *capsys.readouterr()

    return call


def result(folder):
    return json.loads((folder / RESULT).read_text())


def test_tasks_are_put_to_a_model(evaluate, tmp_path):
    code, out, _ = evaluate("task=gqa,files")
    assert code == 0
    gqa = result(tmp_path / "out" / "gqa")
    assert gqa["model"] == "mine"
    assert gqa["departures"] == ["task.max_new_tokens is 4, not 128"]
    assert result(tmp_path / "out" / "files")["departures"] == []
    assert f"gqa: accuracy {gqa['scores']['accuracy']:.4g} (3 questions about 2 images)\n" in out
    assert "not as published: task.max_new_tokens is 4, not 128" in out
    lines = jsonl.records(tmp_path / "out" / "gqa" / ANSWERS)
    assert evaluate("task=gqa,files") == (0, out, "")
    assert jsonl.records(tmp_path / "out" / "gqa" / ANSWERS) == lines


@pytest.mark.parametrize("task", TASKS)
def test_every_task(model, capsys, tmp_path, monkeypatch, task):
    """Files in the official layout in, results and the file for the server out."""
    getattr(official_files, task)(tmp_path / "root")
    card = plain(compose(f"task={task}", config="eval").task)
    java.put_in_place(tmp_path, monkeypatch)
    prompt = ["prompt=llava_refer"] * task.startswith("refcoco")
    words = [f"task={task}", f"run={model}", f"root={tmp_path / 'root'}", f"out={tmp_path / 'out'}", *SHORT, *prompt]
    assert main(["eval", *words]) == 0
    found = result(tmp_path / "out" / task)
    assert found["main"] == card["main"]
    assert list(found["scores"]) == [] if card["metric"] is None else card["main"] in found["scores"]
    assert (card["submission"] is not None) == ("submission" in found)
    assert (tmp_path / "out" / task / found.get("submission", ANSWERS)).stat().st_size
    lines = jsonl.records(tmp_path / "out" / task / ANSWERS)
    assert len(lines) == found["questions"]
    assert all((line["score"] is None) == (card["metric"] is None) for line in lines)


def test_results_lie_in_the_folder_of_the_run(evaluate, model):
    assert evaluate("task=gqa", "out=null", "task.max_new_tokens=128")[0] == 0
    assert result(model / "eval" / "gqa")["departures"] == []


def test_another_prompt_is_a_departure(evaluate, tmp_path):
    evaluate("task=gqa", "prompt=last", "task.max_new_tokens=128")
    assert result(tmp_path / "out" / "gqa")["departures"] == ["another prompt than that of the model is used"]
    code, _, err = evaluate("task=gqa", "task.max_new_tokens=128")
    assert code == 2
    assert "holds answers of other settings (they differ in prompt" in err


def test_ranking(evaluate, tmp_path):
    assert evaluate("task=pope", "rank=true")[0] == 0
    replies = {line["text"] for line in jsonl.records(tmp_path / "out" / "pope" / ANSWERS)}
    assert replies <= {"Yes", "No", "yes", "no"}
    assert replies
    code, _, err = evaluate("task=gqa", "rank=true")
    assert code == 2
    assert "rank=true: 3 questions of gqa have no options" in err


def test_beams(evaluate, tmp_path):
    assert evaluate("task=gqa", "num_beams=2", "length_penalty=-1", "task.max_new_tokens=4")[0] == 0
    beams = result(tmp_path / "out" / "gqa")["settings"]["beams"]
    assert beams == {"num_beams": 2, "length_penalty": -1, "min_new_tokens": 0}
    code, _, err = evaluate("task=pope", "rank=true", "num_beams=2")
    assert code == 2
    assert "rank=true generates no replies; leave out num_beams" in err
    code, _, err = evaluate("task=pope", "num_beams=0", "length_penalty=99")
    assert code == 2
    assert "num_beams: expected int of at least 1, got 0" in err
    assert "length_penalty: expected float of at least -50 and of at most 50, got 99" in err


def test_a_job_that_fails_is_named_and_the_others_are_done(evaluate, root, tmp_path):
    (root / "gqa" / "llava_gqa_testdev_balanced.jsonl").unlink()
    code, out, err = evaluate("task=gqa,pope")
    assert code == 1
    assert "pope: f1" in out
    assert "llava_gqa_testdev_balanced.jsonl" in err
    assert "mmrnn: 1 of 2 failed: task=gqa run=" in err
    assert "root=" in err
    code, _, err = evaluate("task=gqa")
    assert code == 2
    assert "llava_gqa_testdev_balanced.jsonl" in err


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["task=gqqa"], "gqa"),
        (["task=gqa", "task.sufix=now"], "suffix"),
        (["task=gqa", "batch_size=0"], "batch_size"),
        (["task=gqa", "precision=half"], "precision: expected one of"),
        (["task=gqa", "hydra/launcher=joblib"], "eval does its jobs itself"),
        (["task=gqa", "task.reader._target_=mmrnn.prompts.Template"], "task.reader"),
        (["task=gqa", "task._target_=mmrnn.prompts.Template"], "task"),
        (["task=gqa", "task.metric=null"], "main='accuracy' must name a value of the metric, and be empty without one"),
        (["task=gqa", "run=nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(evaluate, words, fault, tmp_path):
    code, _, err = evaluate(*words)
    assert code == 2
    assert fault in err
    assert len(err.splitlines()) <= 9
    assert not (tmp_path / "out").exists()


def test_a_task_is_required(capsys):
    assert main(["eval", "run=nowhere"]) == 2
    assert "task: no card is chosen; set task=NAME (`mmrnn list task`)" in capsys.readouterr().err


def test_benchmarks_after_training(root, tmp_path, capsys, monkeypatch):
    """They are run into the folder of the run, where `mmrnn eval` finds them done."""
    out = tmp_path / "run"
    cfg = plain(compose(*TRAINED, "evaluate.tasks=[gqa,files]", f"evaluate.root={root}"))
    train(cfg, out)
    assert result(out / "eval" / "gqa")["questions"] == 3
    assert result(out / "eval" / "files")["questions"] == 4
    monkeypatch.setattr("mmrnn.evaluation.tasks.run_task.replies", lambda *_: pytest.fail("asked again"))
    assert main(["eval", f"run={out}", f"root={root}", "task=gqa", "device=cpu"]) == 0
    assert result(out / "eval" / "gqa")["departures"] == []


def test_a_missing_file_ends_a_run_before_it_trains(tmp_path):
    with pytest.raises(FileNotFoundError, match="llava_gqa"):
        train(plain(compose(*TRAINED, "evaluate.tasks=[gqa]", f"evaluate.root={tmp_path}")), tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_what_the_end_needs_is_missed_at_the_beginning(evaluate, root, tmp_path, monkeypatch):
    """References that the metric refuses, a list of the server, a program: nothing is asked before they are there."""
    monkeypatch.setattr("mmrnn.evaluation.tasks.run_task.replies", lambda *_: pytest.fail("asked"))
    for name in ("mme", "vqav2", "coco_caption"):
        getattr(official_files, name)(root)
    (root / "vqav2" / "llava_vqav2_mscoco_test2015.jsonl").unlink()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    for words, fault in (
        (["task=mme", "max_questions=1"], "has 1 questions; MME pairs two of each"),
        (["task=vqav2"], "llava_vqav2_mscoco_test2015.jsonl"),
        (["task=coco_caption"], "needs Java"),
    ):
        code, _, err = evaluate(*words)
        assert code in (1, 2)
        assert fault in err
        assert not (tmp_path / "out" / words[0].removeprefix("task=") / ANSWERS).exists()


def test_an_unknown_benchmark_is_refused(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *TRAINED, "evaluate.tasks=[gqqa]"]) == 2
    assert "evaluate.tasks: " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
