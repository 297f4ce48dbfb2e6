"""docs/evaluation.md: its table has every task with its file, and its commands compose."""

import re
import shlex
from pathlib import Path

import pytest

from mmrnn.config.compose import compose, conf_dir, sweep_jobs
from mmrnn.config.tree import plain
from mmrnn.config.validate import check, check_eval
from mmrnn.evaluation.tasks.open_task import open_task
from mmrnn.prompts import Template

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| `\w+`.*$", PAGE, re.M)
ROWS = {name: line for line in LINES for name in re.findall(r"`(\w+)`", line.split("|")[1])}
TASKS = sorted(path.stem for path in (conf_dir() / "task").glob("*.yaml"))


def commands():
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_in_the_table(task):
    reader = plain(compose(f"task={task}", config="eval").task)["reader"]
    if task != "files" and "file" in reader:
        assert "as above" in ROWS[task] or f"`{reader['file']}`" in ROWS[task]
    assert task in ROWS


@pytest.mark.parametrize("command", [words for words in commands() if words[:2] == ["mmrnn", "eval"]], ids=" ".join)
def test_eval_commands(command):
    assert [check_eval(compose(*job, config="eval")) for job in sweep_jobs(*command[2:], config="eval")]


def test_a_benchmark_after_training():
    [command] = [words for words in commands() if "evaluate.tasks=[gqa,pope]" in words]
    check(compose(*command[2:]))


def test_questions_under_conditions():
    [command] = [words for words in commands() if "evaluate.shots=[1,4]" in words]
    check(compose(*command[2:]))


def test_the_lines_of_own_questions(tmp_path):
    [lines] = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    (tmp_path / "questions.jsonl").write_text(lines)
    (tmp_path / "images").mkdir()
    card = plain(compose("task=files", config="eval").task)
    questions = open_task(card).questions(tmp_path, Template())
    assert [question.record["question_id"] for question in questions] == [1, 2]
    assert [question.truths for question in questions] == [("a kite",), ("red", "dark red")]
    assert questions[1].options == ("red", "blue")
