"""`mmrnn sweep store` and `mmrnn report --page`: results for good, and the page that is made from them."""

import gzip
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from mmrnn.cli import report
from mmrnn.cli import sweep as sweep_verb
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import override_key
from mmrnn.config.sweep import read_sweep
from mmrnn.config.sweep_plan import plan_sweep
from mmrnn.evaluation.accuracy import Answer
from mmrnn.evaluation.reports.answer_file import write_answers
from mmrnn.evaluation.reports.run_folder import RESULT
from mmrnn.evaluation.reports.seed_statistics import SeedEstimate, SeedEstimates
from mmrnn.evaluation.reports.sweep_file import read_plan, record_plan
from mmrnn.evaluation.sweeps.contrasts import NO_DIFFERENCE, Difference, differences
from mmrnn.evaluation.sweeps.evidence_page import verdict
from mmrnn.evaluation.sweeps.fold import fold_sweep
from mmrnn.evaluation.sweeps.job_status import begin_job
from mmrnn.evaluation.sweeps.report import analyse
from mmrnn.evaluation.sweeps.stored import read_stored

ROOT = Path(__file__).parents[2]
SHARES = {"first": 0.4, "sandwich": 0.9}
CARD = {
    "grid": {"prompt": [*SHARES]},
    "seeds": [0, 1, 2, 3, 4, 5],
    "contrasts": [{"group": "prompt", "option": "sandwich", "against": "first"}],
}
CONTRAST = "prompt: sandwich - first"
LOSSES = {1000: 0.3, 20: 0.0}
KINDS = {"colour": ("red", "green", "blue", "red"), "count": ("two", "two")}
AT_PROMPTS = ("", ", at prompt=first", ", at prompt=sandwich")
TABLE = {"source": "A paper, table 3", "columns": ["a", "b"], "rows": {"f": [50, None], "s": [53, 9]}}
QUESTIONS = {
    "prompt": {"question": "Is it better?", "papers": [{**TABLE, "claims": {CONTRAST: {"s": 1, "f": -1}}}]},
    "later": {"question": "And what of that?", "note": "It is not asked here."},
}


def answers(share, rng):
    return [
        Answer(kind, f"{kind}?", truth, truth if rng.uniform() < share else "no", n, f"{kind}{n}", (f"image{n // 2}",))
        for kind, truths in KINDS.items()
        for n, truth in enumerate(truths * 10)
    ]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Folder with a sweep of 2 designs and 6 seeds, of which one job is not begun, and a folder for what is stored."""
    monkeypatch.chdir(tmp_path)
    command = ["sweep=prompt", "data.scenes=9", "weights.model=/a/b", "out=there", "hydra/launcher=joblib"]
    plan = replace(plan_sweep(command[1:2], read_sweep(CARD), card="prompt"), command=command)
    folder, rng = Path("multirun"), np.random.default_rng(0)
    folder.mkdir()
    record_plan(folder, plan)
    for name, words in [*plan.jobs.items()][:-1]:
        (folder / name).mkdir()
        begin_job(folder / name, words)
        options = {override_key(word): word.partition("=")[2] for word in words}
        share = SHARES[options["prompt"]]
        found = {split: answers(share, rng) for split in ("scenes", "style")}
        found |= {f"scenes_after_{distance}": answers(share - loss, rng) for distance, loss in LOSSES.items()}
        write_answers(folder / name, found)
        row = {"accuracy": 0.5, "majority": 0.5, "blind": 0.25, "right": 1, "total": 2}
        result = {
            **{"config": {"seed": 0}, "choices": options, "parameters": 9, "seconds": 8.5, "loss": 1.0},
            **{"objective": 0.5, "accuracy": {split: dict.fromkeys(KINDS, row) for split in found}},
        }
        (folder / name / RESULT).write_text(json.dumps(result))
    Path("evidence").mkdir()
    Path("evidence/questions.yaml").write_text(yaml.safe_dump(QUESTIONS, sort_keys=False))
    return folder


def store(folder):
    sweep_verb.main(["store", str(folder), "evidence/prompt"])


def page():
    report.main(["evidence", "--page", "page.md"])
    return Path("page.md").read_text()


def test_stored_results_are_those_of_the_sweep(study):
    store(study)
    found, before = read_stored(Path("evidence/prompt")), fold_sweep(study, read_plan(study))
    assert [*found.scores] == ["scenes", "style", "scenes_by_distance"]
    assert [(run.name, run.design, run.seed) for run in found.runs] == [
        (run.name, run.design, run.seed) for run in before.runs
    ]
    for split, scores in found.scores.items():
        np.testing.assert_array_equal(scores.values, before.scores[split].values)
        assert scores.baselines == before.scores[split].baselines
        assert scores.baselines["chance"] == {"colour": 1 / 3, "count": 1}
        assert scores.baselines["blind"] == {"colour": 0.25, "count": 0.25}
    for split in found.scores:
        one, other = (analyse(fold)[split].contrasts for fold in (found, before))
        assert repr(one) == repr(other)


def test_a_condition_is_a_further_key_of_the_designs(study):
    store(study)
    scores = read_stored(Path("evidence/prompt")).scores["scenes_by_distance"]
    assert [*scores.designs()][:3] == [f"prompt=first distance={value}" for value in (0, 20, 1000)]
    found = {one.name: one for one in differences(scores.contrasts, scores)}
    assert [*found] == [
        *(f"distance: 20 - 0{more}" for more in AT_PROMPTS),
        "(distance: 20 - 0) changes from prompt=first to sandwich",
        *(f"distance: 1000 - 0{more}" for more in AT_PROMPTS),
        "(distance: 1000 - 0) changes from prompt=first to sandwich",
        *(f"{CONTRAST}{more}" for more in ("", *(f", at distance={value}" for value in (0, 20, 1000)))),
        *(f"({CONTRAST}) changes from distance=0 to {value}" for value in (20, 1000)),
    ]
    assert found["distance: 1000 - 0"].estimates.mean.value == pytest.approx(-0.3, abs=0.08)
    assert (found["distance: 1000 - 0"].number, found[f"{CONTRAST}, at distance=20"].number) == (11, 5)


def test_the_same_results_give_the_same_bytes(study):
    store(study)
    first = {path.name: path.read_bytes() for path in Path("evidence/prompt").iterdir()}
    text = page()
    store(study)
    assert {path.name: path.read_bytes() for path in Path("evidence/prompt").iterdir()} == first
    assert [*sorted(first)] == ["answers.jsonl.gz", "results.jsonl", "sweep.yaml"]
    assert page() == text


def test_seeds_that_were_run_elsewhere_are_added(study):
    """Half of the jobs are stored from one folder, the others from another one: together they are the sweep."""
    store(study)
    whole = read_stored(Path("evidence/prompt"))
    for path in Path("evidence/prompt").iterdir():
        path.unlink()
    plan, here = read_plan(study), Path("elsewhere")
    here.mkdir()
    halves = [
        [name for name, words in plan.jobs.items() if (words[-1] in ("seed=0", "seed=1")) == one] for one in (0, 1)
    ]
    for half, folder in zip(halves, (study, here), strict=True):
        seeds = sorted({plan.jobs[name][-1][5:] for name in half})
        (folder / "sweep.yaml").unlink(missing_ok=True)
        jobs = {name: plan.jobs[name] for name in half}
        record_plan(folder, replace(plan, grid={**plan.grid, "seed": seeds}, jobs=jobs))
    for name in halves[1]:
        (study / name).rename(here / name)
    store(study)
    store(here)
    found = read_stored(Path("evidence/prompt"))
    assert {run.name for run in found.runs} == {run.name for run in whole.runs}
    for split, scores in whole.scores.items():
        there = [(run.name, run.design) for run in found.scores[split].runs]
        rows = [there.index((run.name, run.design)) for run in scores.runs]
        assert len(there) == len(rows)
        np.testing.assert_array_equal(found.scores[split].values[rows], scores.values)
    assert {*found.plan.grid["seed"]} == {*plan.grid["seed"]}
    before = {path.name: path.read_bytes() for path in Path("evidence/prompt").iterdir()}
    store(here)
    assert {path.name: path.read_bytes() for path in Path("evidence/prompt").iterdir()} == before


def test_results_of_another_sweep_are_not_added(study):
    store(study)
    plan = read_plan(study)
    (study / "sweep.yaml").unlink()
    record_plan(study, replace(plan, overrides=["data.scenes=8"]))
    with pytest.raises(ConfigError, match=r"results of another sweep \(overrides: .*\); choose another folder"):
        store(study)
    (study / "sweep.yaml").unlink()
    record_plan(study, plan)
    for path in study.glob("*/answers.jsonl"):
        path.write_text(path.read_text().replace('"red"', '"pink"'))
    with pytest.raises(ConfigError, match="results on other questions of scenes; choose another folder"):
        store(study)


def test_the_page_names_every_contrast_and_what_was_not_run(study):
    store(study)
    text = page()
    assert "mmrnn train -m sweep=prompt data.scenes=9\n" in text
    assert "Jobs: 11 finished, 1 not finished. A run took 8 s on average. `scenes` has 60 questions of 2 kinds " in text
    [sentence] = re.findall(rf"^- `{re.escape(CONTRAST)}` on `scenes`: .*$", text, re.M)
    assert "5 pairs of runs" in sentence
    assert "The paper has +3.0%." in sentence
    assert "shows with 80 % power" in sentence
    assert re.search(r"\*\*(Reproduced|Undecided)\*\*", sentence)
    assert "| [later](#later) | And what of that? |  |  |  | not run |" in text
    assert "| prompt=first distance=1000 | 6 | " in text
    assert "It is not asked here.\n\nNot run: there are no results" in text
    assert re.search(r"^\| chance \|  \| 66.7% \| 66.7% \|$", text, re.M)
    assert re.search(r"^\| blind \| 25.0% \| 25.0% \|$", text, re.M)


@pytest.mark.slow
def test_the_stored_page_is_that_of_the_stored_results(tmp_path):
    """`docs/evidence.md`, to the byte."""
    report.main([str(ROOT / "evidence"), "--page", str(tmp_path / "page.md")])
    assert (tmp_path / "page.md").read_text() == (ROOT / "docs" / "evidence.md").read_text(), (
        "run `mmrnn report evidence --page docs/evidence.md`"
    )
    assert sum(path.stat().st_size for path in (ROOT / "evidence").rglob("*") if path.is_file()) < 5_000_000


@pytest.mark.parametrize(
    ("claim", "low", "high", "tested", "wanted"),
    [
        (0.05, 0.01, 0.03, "better", "reproduced"),
        (-0.05, 0.01, 0.03, "better", "not reproduced"),
        (0.05, -0.01, 0.03, NO_DIFFERENCE, "undecided"),
        (0.05, -0.03, 0.01, NO_DIFFERENCE, "not reproduced"),
        (0.008, -0.01, 0.009, NO_DIFFERENCE, "undecided"),
        (-0.05, -0.03, 0.01, NO_DIFFERENCE, "undecided"),
        (0.001, -0.01, 0.01, NO_DIFFERENCE, "reproduced"),
        (0.001, -0.01, 0.03, NO_DIFFERENCE, "undecided"),
        (0.001, 0.01, 0.03, "better", "not reproduced"),
        (0.05, float("nan"), float("nan"), NO_DIFFERENCE, "undecided"),
        (None, 0.01, 0.03, "better", "better"),
    ],
)
def test_a_verdict_is_on_the_side_of_the_paper(claim, low, high, tested, wanted):
    mean = SeedEstimate((low + high) / 2, low, high, 0.01, 5.0)
    assert verdict(claim, Difference("x", 5, SeedEstimates(mean, {}), 0.01, 0.01, tested)) == wanted


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("questions.yaml", lambda text: text.replace("prompt:", "other:", 1), "no question of questions.yaml"),
        ("questions.yaml", lambda text: text.replace(CONTRAST, "x"), "no contrast of"),
        ("questions.yaml", lambda text: text.replace("source", "sauce"), "no such field; did you mean 'source'"),
        ("questions.yaml", lambda text: text.replace("columns:\n    - a", "columns:"), "2 figures for 1 columns"),
        (
            "questions.yaml",
            lambda text: text.replace("- null", "- 9").replace("- 50", "- null").replace("- 9", "- null"),
            "no column",
        ),
        ("prompt/results.jsonl", lambda text: text.replace('"seconds": 8.5', '"seconds": null'), "row 1 has seconds"),
        ("prompt/results.jsonl", lambda text: text.replace("job_", "jab_"), "answers.jsonl.gz is damaged"),
        ("prompt/answers.jsonl.gz", lambda text: "x", "answers.jsonl.gz is damaged"),
        ("prompt/sweep.yaml", None, r"there is no .*sweep\.yaml"),
    ],
)
def test_a_damaged_file_is_named(study, file, change, message):
    store(study)
    path = Path("evidence", file)
    if change is None:
        path.unlink()
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(b"[]")[:-9])
    else:
        path.write_text(change(path.read_text()))
    with pytest.raises(ConfigError, match=message):
        page()


@pytest.mark.parametrize("words", [["store", "multirun"], ["store", "multirun", "a=b"]])
def test_one_folder_is_named(study, words):
    with pytest.raises(ConfigError, match="name one folder"):
        sweep_verb.main(words)


def test_a_sweep_without_a_result_is_not_stored(study):
    for path in study.glob(f"*/{RESULT}"):
        path.unlink()
    with pytest.raises(ConfigError, match="no finished job"):
        store(study)


REFERENCE = {"question": "prompt", "design": "prompt=first"}


def ask_students(**reference):
    """The same results also answer a question whose designs are shares of a reference."""
    shutil.copytree("evidence/prompt", "evidence/students")
    questions = {**QUESTIONS, "students": {"question": "What is kept?", "reference": {**REFERENCE, **reference}}}
    Path("evidence/questions.yaml").write_text(yaml.safe_dump(questions, sort_keys=False))


def test_designs_are_shares_of_a_reference(study):
    store(study)
    ask_students()
    section = page().partition("## students")[2]
    head = next(line for line in section.splitlines() if line.startswith("| share of prompt=first [95 %]"))
    assert [*map(str.strip, head.strip("|").split("|"))][1:] == ["scenes", "style"]
    shares = section.partition(head)[2].splitlines()[2:4]
    assert shares[0] == "| prompt=first | 100% [100%, 100%] | 100% [100%, 100%] |"
    means = {run.seed: value for run, value in of_design("prompt=first")}
    ratios = [value / means[run.seed] for run, value in of_design("prompt=sandwich")]
    assert len(ratios) == 5
    assert shares[1].startswith(f"| prompt=sandwich | {np.mean(ratios):.0%} [")


def of_design(name):
    scores = read_stored(Path("evidence/prompt")).scores["scenes"]
    return [(scores.runs[place], scores.means()[place, 0]) for place in scores.designs()[name]]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"question": "promt"}, r"students.reference.question: there is no 'promt'.*prompt"),
        ({"design": "prompt=last"}, r"students.reference: there is no design 'prompt=last'; there are prompt=first"),
        ({"split": "scenes"}, r"students.reference.split: no such field"),
    ],
)
def test_a_reference_that_is_none(study, reference, message):
    store(study)
    ask_students(**reference)
    with pytest.raises(ConfigError, match=message):
        page()
