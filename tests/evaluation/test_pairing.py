"""`mmrnn report` pairs runs by sample, says what it cannot tell apart, and keeps seeds beside it."""

import json
import shutil
import sys
from dataclasses import replace

import pytest

from mmrnn.cli import report
from mmrnn.config.error import ConfigError
from mmrnn.evaluation.accuracy import Answer
from mmrnn.evaluation.reports.answer_file import ANSWERS, read_answers, scored, write_answers
from mmrnn.evaluation.reports.pairing import INSIGNIFICANT, compare, pair
from mmrnn.evaluation.reports.run_folder import RESULT


def replies(right, count=120):
    return [scored(answer) for answer in answers(right, count)]


def answers(right, count=120):
    """Answers about `count // 3` images, of which the first `right` are right."""
    return [
        Answer("count", f"{n}?", "two", "two" if n < right else "<b>five", n, f"s{n}", (f"image{n // 3}",))
        for n in range(count)
    ]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Write a finished run of a sweep."""
    monkeypatch.setenv("COLUMNS", "250")

    def write(name, found, connector="linear", seed=1):
        share = sum(answer.right for answer in found) / len(found)
        result = {
            "config": {"seed": seed, "connector": {"_target_": connector}},
            "choices": {"connector": connector},
            "parameters": 1000,
            "seconds": 3.0,
            "loss": 1.5,
            "accuracy": {"scenes": {"count": {"accuracy": share}}},
            "objective": 0.5,
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / RESULT).write_text(json.dumps(result))
        write_answers(tmp_path / name, {"scenes": found})
        return tmp_path / name

    write.root = tmp_path
    return write


def rows(folder, title):
    """Cells of a table in `comparison.md`, without its head."""
    text = (folder / "comparison.md").read_text().partition(f"## {title}")[2]
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_answers_are_read_as_they_were_written(tmp_path):
    write_answers(tmp_path, {"a": answers(3), "b": answers(0, 3)})
    assert read_answers(tmp_path) == {"a": replies(3), "b": replies(0, 3)}


def test_runs_are_paired_by_id_in_any_order():
    shuffled = [*reversed(replies(60))]
    assert all(a.id == b.id for a, b in pair(replies(3), shuffled))
    twice = [replace(answer, id="same") for answer in replies(3)]
    assert pair(twice, twice) == [(answer, answer) for answer in twice]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replies(3, 30), "its 30 samples and the 120 of the baseline share 30 ids"),
        ([replace(a, id=f"x{a.id}") for a in replies(3)], "its 120 samples and the 120 of the baseline share 0 ids"),
        (
            [scored(replace(a, truth="three")) for a in answers(3)],
            "120 of its 120 samples have another question, truth",
        ),
        ([replace(a, id="" if n < 7 else a.id) for n, a in enumerate(replies(3))], "7 of 120 samples have no id"),
    ],
)
def test_other_samples_are_not_paired(other, message):
    with pytest.raises(ValueError, match=message):
        pair(replies(3), other)
    verdicts = [row[-1] for row in compare({"one": {"a": replies(3)}, "other": {"a": other}}, "one").rows]
    assert verdicts[0] == "baseline"
    assert verdicts[1].startswith(f"not paired: {message}")


def test_a_report_says_what_is_better_and_which_differences_are_significant(job, capsys):
    job("0", answers(30), "linear")
    job("1", answers(33), "mlp")
    job("2", answers(90), "qformer")
    report.main([str(job.root)])
    shown = capsys.readouterr().out
    found = rows(job.root, "Differences from connector=linear")
    assert [row[:4] for row in found] == [
        ["scenes", f"connector={name}", "120", "40"] for name in ("linear", "mlp", "qformer")
    ]
    assert [row[-1] for row in found] == ["baseline", INSIGNIFICANT, "better"]
    assert found[0][4].startswith("25.0% [")
    assert found[2][5].startswith("+50.0% [+")
    assert found[1][6:8] == ["3 : 0", "0.25"]
    assert INSIGNIFICANT in shown
    assert "Spread over seeds" not in shown
    page = (job.root / "comparison.html").read_text()
    assert "scenes: connector=qformer, 8 of 60 disagreements" in page
    assert "<td>image10<td>" in page.replace("</td>", "")
    assert (
        "disagreements are shown without their image; first image10: the configuration of the run names no data" in page
    )
    assert "&lt;b&gt;five" in page


def test_any_run_can_be_the_baseline(job):
    job("0", answers(30), "linear")
    run = job("1", answers(90), "mlp")
    report.main([str(job.root), "--baseline", str(run)])
    assert [row[-1] for row in rows(job.root, "Differences from connector=mlp")] == ["worse", "baseline"]
    with pytest.raises(ConfigError, match="--baseline nowhere is none of the finished runs"):
        report.main([str(job.root), "--baseline", "nowhere"])


def test_two_copies_of_a_run_do_not_differ(job):
    shutil.copytree(job("0", answers(30)), job.root / "1")
    report.main([str(job.root)])
    assert rows(job.root, "Differences from")[1][5:] == ["+0.0% [+0.0%, +0.0%]", "0 : 0", "1", INSIGNIFICANT]


def test_the_spread_over_seeds_stands_beside_the_intervals(job):
    for number, (connector, seed, right) in enumerate(
        [("linear", 1, 24), ("linear", 2, 36), ("mlp", 1, 48), ("mlp", 2, 60), ("mlp", 3, 72)]
    ):
        job(str(number), answers(right), connector, seed)
    report.main([str(job.root)])
    assert rows(job.root, "Spread over seeds") == [
        ["connector=linear", "scenes", "2", "25.0%", "7.1%", "20.0%", "30.0%"],
        ["connector=mlp", "scenes", "3", "50.0%", "10.0%", "40.0%", "60.0%"],
    ]
    assert len(rows(job.root, "Differences from connector=linear seed=1")) == 5


OLD = json.dumps({"split": "a", "kind": "k", "question": "?", "truth": "t", "reply": "r", "index": 0})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OLD + "\n", "has no ids of samples: it was written by an older mmrnn"),
        ("{]\n", "is damaged: line 1 is not JSON"),
        (json.dumps({"id": 3, "images": []}) + "\n", "is damaged: record 1 lacks 'split'"),
        (json.dumps({**json.loads(OLD), "id": "s", "images": [3]}) + "\n", "has an image that is no text"),
        (None, "there is no "),
    ],
)
def test_answers_that_cannot_be_paired_cost_one_sentence(job, capsys, content, message):
    job("0", answers(30), "linear")
    bad = job("1", answers(33), "mlp") / ANSWERS
    if content is None:
        bad.unlink()
    else:
        bad.write_text(content)
    report.main([str(job.root)])
    for text in (capsys.readouterr().out, (job.root / "comparison.md").read_text()):
        assert text.count("connector=mlp: its held-out questions have no interval and are not paired: ") == 1
        assert text.count(message) == 1
    assert [row[-1] for row in rows(job.root, "Differences from")] == ["baseline"]


def test_a_baseline_without_answers_leaves_the_intervals(job):
    (job("0", answers(30), "linear") / ANSWERS).unlink()
    job("1", answers(33), "mlp")
    report.main([str(job.root)])
    [row] = rows(job.root, "Differences from")
    assert row[4].startswith("27.5% [")
    assert row[-1] == "not paired: the baseline has no answers with ids here"


def test_without_scipy_the_rest_of_a_report_stands(job, capsys, monkeypatch):
    job("0", answers(30), "linear")
    job("1", answers(33), "mlp")
    for name in ("scipy", "scipy.stats", "scipy.sparse", "scipy.sparse.csgraph"):
        monkeypatch.setitem(sys.modules, name, None)
    report.main([str(job.root)])
    for text in (capsys.readouterr().out, (job.root / "comparison.md").read_text()):
        assert "an interval needs scipy" in text
        assert "pip install 'mmrnn[stats]'" in text
        assert "27.5%" in text
