"""Damaged files of a run folder are named, whatever the damage, and the other runs are reported."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrnn.cli import report
from mmrnn.evaluation.reports.answer_file import ANSWERS
from mmrnn.evaluation.reports.comparison import find_runs
from mmrnn.evaluation.reports.run_folder import FAILURE, LOG, RESULT
from mmrnn.io.lock import LOCK

pytestmark = pytest.mark.slow

ROW = {"accuracy": 0.5, "majority": 0.5, "blind": 0.5, "right": 1, "total": 2}
GOOD = {
    RESULT: {
        "config": {"seed": 1, "connector": {"_target_": "a"}},
        "choices": {"connector": "linear"},
        "seed": 1,
        "parameters": 1000,
        "seconds": 3.0,
        "loss": 1.5,
        "accuracy": {"records": {"reply": ROW}},
        "objective": 0.5,
    },
    LOG: {
        "step": 10,
        "stage": "instruct",
        "loss": 1.5,
        "lr": 1e-3,
        "skipped_steps": 0,
        "dropped": {"total": 0, "reasons": {}},
    },
    FAILURE: {"error": "ValueError", "message": "no", "time": "now"},
    ANSWERS: {
        **{"split": "records", "kind": "reply", "question": "?", "truth": "no", "reply": "no", "index": 0, "id": "a"},
        "images": ["a.png"],
    },
    f"eval/gqa/{RESULT}": {
        **{"task": "gqa", "questions": 1, "main": "accuracy", "scores": {"accuracy": 0.5}, "departures": ["other"]},
        **{"settings": {}, "root": "data", "skipped": {"an image is not there": ["a"]}},
    },
    f"eval/gqa/{ANSWERS}": {"id": "a", "image": "a.png", "prompt": "?", "text": "no", "truth": ["no"], "score": 0.5},
}
TASK = [name for name in GOOD if name.startswith("eval")]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(content):
    """Every dictionary inside a dictionary, with each of its keys."""
    for key, value in content.items():
        yield content, key
        if isinstance(value, dict):
            yield from places(value)


@st.composite
def damaged(draw, name):
    """Bytes of a file: random, cut, overwritten at one place, or another JSON value at one place."""
    whole = (json.dumps(GOOD[name]) + "\n").encode()
    kind = draw(st.sampled_from(("whole", "random", "cut", "flipped", "replaced")))
    if kind == "random":
        return draw(st.binary(max_size=60))
    if kind == "cut":
        return whole[: draw(st.integers(0, len(whole)))]
    if kind == "flipped":
        place = draw(st.integers(0, len(whole) - 1))
        return whole[:place] + draw(st.binary(min_size=1, max_size=2)) + whole[place + 1 :]
    if kind == "replaced":
        content = json.loads(whole)
        inner, key = draw(st.sampled_from([*places(content)]))
        inner[key] = draw(JSON)
        return (json.dumps(content) + "\n").encode()
    return whole


@given(st.fixed_dictionaries({name: st.none() | damaged(name) for name in GOOD}))
@settings(max_examples=600, deadline=None, derandomize=True)
def test_the_rest_of_a_report_stands(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("sweep")
    for run in ("good", "bad"):
        (folder / run).mkdir(parents=True)
        (folder / run / LOCK).touch()
    for run in ("good", "bad"):
        (folder / run / TASK[0]).parent.mkdir(parents=True)
    for name in (RESULT, ANSWERS, *TASK):
        (folder / "good" / name).write_text(json.dumps(GOOD[name]) + "\n")
    for name, content in files.items():
        if content is not None:
            (folder / "bad" / name).write_bytes(content)
    finished, unfinished = find_runs(folder)
    assert sorted(run.folder.name for run in (*finished, *unfinished)) == ["bad", "good"]
    assert all(run.reason for run in unfinished)
    report.main([str(folder)])
    text = (folder / "comparison.md").read_text()
    assert "1,000" in text
    assert "| task gqa |" in text
