"""`mmrnn report` over tasks: `eval/TASK` of the runs is paired by id, and what is damaged costs a sentence."""

import json

import pytest

from mmrnn.cli import report
from mmrnn.evaluation.reports.comparison import find_runs
from mmrnn.evaluation.reports.pairing import INSIGNIFICANT
from mmrnn.evaluation.reports.run_folder import RESULT
from mmrnn.evaluation.tasks.answer_lines import SETTINGS


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Write a finished run without held-out answers; every run has another seed or connector."""
    monkeypatch.setenv("COLUMNS", "250")

    def write(name, connector="linear", seed=1, **tasks):
        result = {
            **{"parameters": 1000, "seconds": 3.0, "loss": 1.5, "accuracy": {}, "objective": 0.5},
            "config": {"seed": seed, "connector": {"_target_": connector}},
            "choices": {"connector": connector},
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / RESULT).write_text(json.dumps(result))
        (tmp_path / name / "answers.jsonl").touch()
        for task, lines in tasks.items():
            task_files(tmp_path / name, task, lines)
        return tmp_path / name

    write.root = tmp_path
    return write


def lines(scores, prompt="what?"):
    """Answers about a third as many images."""
    common = {"question_id": 3, "answer_id": "u", "model_id": "m", "metadata": {}, "kind": "a"}
    return [
        {**common, "id": f"q{n}", "image": f"{n // 3}.jpg", "prompt": prompt, "text": "two", "truth": ["2"], "score": s}
        for n, s in enumerate(scores)
    ]


def task_files(run, task, found, **changed):
    scores = [line["score"] for line in found if line["score"] is not None]
    result = {
        **{
            "task": task,
            "model": "m",
            "questions": len(found),
            "images": 9,
            "departures": [],
            "settings": {},
            "root": ".",
        },
        "scores": {"accuracy": sum(scores) / len(scores)} if scores else {},
        "main": "accuracy" if scores else "",
        "skipped": {"an image is not there": ["q1", "q2"]},
        **changed,
    }
    folder = run / "eval" / task
    folder.mkdir(parents=True)
    (folder / RESULT).write_text(json.dumps(result))
    (folder / SETTINGS).write_text("{}")
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    return folder


def rows(folder, title):
    """Cells of a table in `comparison.md`, without its head."""
    text = (folder / "comparison.md").read_text().partition(f"## {title}")[2]
    found = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[2:]]


def test_a_task_is_compared_question_by_question(job, capsys):
    job("0", gqa=lines([1] * 30 + [0] * 90))
    job("1", "mlp", gqa=[*reversed(lines([1] * 33 + [0] * 87, prompt="another prompt?"))])
    job("2", "qformer", gqa=lines([1] * 90 + [0] * 30))
    report.main([str(job.root)])
    found = rows(job.root, "Differences from connector=linear")
    assert [row[:4] for row in found] == [
        ["task gqa", f"connector={name}", "120", "40"] for name in ("linear", "mlp", "qformer")
    ]
    assert found[0][4].startswith("25.0% [")
    assert [row[-1] for row in found] == ["baseline", INSIGNIFICANT, "better"]
    assert found[1][6:8] == ["3 : 0", "0.25"]
    assert rows(job.root, "Tasks")[0] == ["gqa", "connector=linear", "120", "2", "accuracy 0.250", ""]
    assert INSIGNIFICANT in capsys.readouterr().out


def test_scores_between_right_and_wrong_are_compared_by_the_interval(job):
    job("0", vqav2=lines([0.3, 0.6, 0.9] * 30))
    job("1", "mlp", vqav2=lines([0.6, 0.6, 0.6] * 30))
    job("2", "qformer", vqav2=lines([0.6, 0.6, 0.9] * 30))
    report.main([str(job.root)])
    found = rows(job.root, "Differences from connector=linear")
    assert [row[4].split()[0] for row in found] == ["60.0%", "60.0%", "70.0%"]
    assert [row[6:] for row in found[1:]] == [["30 : 30", "", INSIGNIFICANT], ["30 : 0", "", "better"]]


def test_the_mean_is_over_questions_whatever_their_kinds(job):
    every = lines([1, 1, 1, 0])
    job("0", gqa=[{**line, "kind": "few" if line["score"] == 0 else "many"} for line in every])
    report.main([str(job.root)])
    assert rows(job.root, "Intervals")[0][4].startswith("75.0% ")


def test_a_task_without_references_is_listed(job):
    for name, connector in (("0", "linear"), ("1", "mlp")):
        job(name, connector, vizwiz=lines([None] * 6))
    report.main([str(job.root)])
    assert [row[4] for row in rows(job.root, "Tasks")] == ["no reference on disk"] * 2
    assert rows(job.root, "Differences from") == []


def test_departures_are_listed(job):
    task_files(job("0"), "gqa", lines([1, 0]), departures=["another prompt", "a|b\n<i>"])
    report.main([str(job.root)])
    assert r"another prompt; a\|b &lt;i>" in (job.root / "comparison.md").read_text()


def test_other_questions_and_other_references_are_not_paired(job):
    job("0", gqa=lines([1] * 6), pope=lines([1] * 6))
    other = [{**line, "truth": ["3"]} for line in lines([1] * 6)]
    job("1", "mlp", gqa=lines([1] * 4), pope=other, mme=lines([1] * 6))
    report.main([str(job.root)])
    verdicts = {row[0]: row[-1] for row in rows(job.root, "Differences from") if row[1] == "connector=mlp"}
    assert verdicts == {
        "task gqa": "not paired: its 4 samples and the 6 of the baseline share 4 ids",
        "task pope": "not paired: 6 of its 6 samples have another question, truth, kind or image",
        "task mme": "not paired: the baseline has no answers with ids here",
    }


def test_seeds_of_a_task_have_a_spread(job):
    for seed, right in ((1, 1), (2, 2), (3, 3)):
        job(str(seed), seed=seed, gqa=lines([1] * right + [0] * (4 - right)))
    report.main([str(job.root)])
    assert rows(job.root, "Spread over seeds") == [["all", "task gqa", "3", "50.0%", "25.0%", "25.0%", "75.0%"]]


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def cut(name):
    return lambda folder: (folder / name).write_text((folder / name).read_text()[:-5])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / RESULT).unlink(), "the task is not finished; repeat its `mmrnn eval`"),
        (cut(RESULT), "result.json is damaged: Unterminated string"),
        (write(RESULT, "[]"), "result.json is damaged: it is no JSON object"),
        (write(RESULT, "[" * 100_000), "result.json is damaged: maximum recursion depth"),
        (cut("answers.jsonl"), "answers.jsonl has 5 of 6 answers; repeat its `mmrnn eval`"),
        (lambda folder: (folder / "answers.jsonl").unlink(), "answers.jsonl has 0 of 6 answers"),
        (write("answers.jsonl", "{]\n"), "is damaged: line 1 is not JSON"),
        (write("answers.jsonl", '{"id": "a", "score": 1}\n' * 6), "record 1 lacks 'prompt'"),
        (
            write("answers.jsonl", "".join(json.dumps(line) + "\n" for line in lines([1, 1, None, 1, 1, 1]))),
            "record 3 has score=None, which should be of type float",
        ),
        (
            write("answers.jsonl", "".join(json.dumps(line) + "\n" for line in lines([1, float("nan"), 1, 1, 1, 1]))),
            "record 2 has score=nan, which is no finite number",
        ),
    ],
)
def test_a_damaged_task_costs_one_sentence(job, capsys, damage, message):
    job("0", gqa=lines([1] * 6), pope=lines([1] * 6))
    damage(job("1", "mlp", gqa=lines([1] * 6), pope=lines([1] * 6)) / "eval" / "gqa")
    report.main([str(job.root)])
    for text in (capsys.readouterr().out, (job.root / "comparison.md").read_text()):
        assert text.count("connector=mlp: ") == 1
        assert text.count(message) == 1
    assert [row[:2] for row in rows(job.root, "Differences from")] == [
        ["task gqa", "connector=linear"],
        ["task pope", "connector=linear"],
        ["task pope", "connector=mlp"],
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"main": "f1"}, "it lacks 'f1'"),
        ({"skipped": {"why": 3}}, "it has why=3, which should be of type list"),
        ({"questions": True}, "it has questions=True"),
        ({"scores": {"accuracy": "high"}}, "it has accuracy='high'"),
    ],
)
def test_a_result_of_another_form_is_named(job, capsys, changed, message):
    task_files(job("0"), "gqa", lines([1, 0]), **changed)
    report.main([str(job.root)])
    assert f"result.json is damaged: {message}" in capsys.readouterr().out


def test_a_task_is_no_run(job):
    job("0", gqa=lines([1] * 6))
    finished, unfinished = find_runs(job.root)
    assert ([run.folder.name for run in finished], unfinished) == (["0"], [])


def test_models_that_were_not_trained_here_are_compared(job, capsys):
    models = [job.root / name for name in ("llava15", "eval/owner--name")]
    task_files(models[0], "gqa", lines([1] * 30 + [0] * 90))
    for path in task_files(models[1], "gqa", lines([1] * 90 + [0] * 30)).parent.glob("*"):
        path.rename(models[1] / path.name)
    report.main([*map(str, models)])
    found = rows(models[0], f"Differences from {models[0]}")
    assert [row[:2] for row in found] == [["task gqa", str(model)] for model in models]
    assert [row[-1] for row in found] == ["baseline", "better"]
    shown = capsys.readouterr().out
    assert "held-out questions" not in shown
    assert "Spread over seeds" not in shown


def test_a_model_stands_beside_a_trained_run(job, capsys):
    task_files(job.root / "llava15", "gqa", lines([1] * 30 + [0] * 90))
    job("runs0", gqa=lines([1] * 90 + [0] * 30))
    job("runs1", "mlp", gqa=lines([1] * 90 + [0] * 30))
    report.main([str(job.root), "--baseline", str(job.root / "llava15")])
    found = rows(job.root, f"Differences from {job.root}/llava15")
    assert [row[1] for row in found] == [f"{job.root}/llava15", "connector=linear", "connector=mlp"]
    assert [row[-1] for row in found] == ["baseline", "better", "better"]
    assert f"{job.root}/llava15 " in capsys.readouterr().out


def test_a_report_steers_no_terminal(job, capsys):
    task_files(job("0"), "gqa", lines([1, 0]), departures=["\x1b[2Jgone \ud800"])
    report.main([str(job.root)])
    assert "\x1b" not in capsys.readouterr().out
    assert "gone &#55296;" in (job.root / "comparison.html").read_text()
