"""`mmrnn report` of a sweep: seeds are folded, contrasts are those of its file, names are never cut."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from mmrnn.checkpoints.config_file import to_yaml
from mmrnn.cli import report
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import override_key
from mmrnn.config.sweep import read_sweep
from mmrnn.config.sweep_plan import SweepPlan, plan_sweep
from mmrnn.evaluation.accuracy import Answer
from mmrnn.evaluation.reports.answer_file import write_answers
from mmrnn.evaluation.reports.pairing import ScoredReply
from mmrnn.evaluation.reports.run_folder import RESULT, write_failure
from mmrnn.evaluation.reports.sweep_file import record_plan
from mmrnn.evaluation.reports.task_results import TASKS
from mmrnn.evaluation.sweeps import fold
from mmrnn.evaluation.sweeps.contrasts import NO_DIFFERENCE, ONLY_INTERVAL, TOO_FEW, differences
from mmrnn.evaluation.sweeps.differing_answers import differing_answers
from mmrnn.evaluation.sweeps.fold import Fold
from mmrnn.evaluation.sweeps.group_plots import interaction, pareto_front
from mmrnn.evaluation.sweeps.job_status import begin_job
from mmrnn.evaluation.sweeps.report import analyse
from mmrnn.evaluation.sweeps.scores import Scores, SweepRun
from mmrnn.evaluation.tasks.answer_lines import SETTINGS

MODELS, PROMPTS = ("visualrwkv6_small", "transformer_small"), ("first", "last", "sandwich")
CONTRASTS = [
    {"group": "prompt", "option": "sandwich", "against": "first", "by": "model"},
    {"group": "prompt", "option": "last", "against": "first"},
]
CARD = {"grid": {"model": MODELS, "prompt": PROMPTS}, "seeds": [1, 2, 3, 4, 5], "contrasts": CONTRASTS, "note": "Why."}


def answers(rng, share):
    return [
        Answer(kind, f"{kind} {n}?", "yes", "yes" if rng.uniform() < share else "no", n, f"s{n}.{kind}", (f"image{n}",))
        for n in range(60)
        for kind in ("colour", "count")
    ]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Folder of a sweep of which one job has failed, and one has not begun; `sandwich` is 30 points better."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    plan, folder, rng = plan_sweep([], read_sweep(CARD), card="prompt"), tmp_path / "s", np.random.default_rng(0)
    folder.mkdir()
    record_plan(folder, plan)
    *done, failed, _ = plan.jobs.items()
    for name, words in [*done, failed]:
        (folder / name).mkdir()
        begin_job(folder / name, words)
        if name == failed[0]:
            write_failure(folder / name, ValueError("no data"))
            continue
        options = {override_key(word): word.partition("=")[2] for word in words}
        found = answers(rng, 0.8 if options["prompt"] == "sandwich" else 0.5)
        write_answers(folder / name, {"scenes": found})
        share = sum(answer.right for answer in found) / len(found)
        result = {"config": {"seed": int(options["seed"])}, "choices": options, "parameters": 9, "seconds": 1.0}
        accuracy = {"scenes": {"all": {"accuracy": share}}}
        (folder / name / RESULT).write_text(json.dumps({**result, "loss": 1.0, "objective": 0.5, "accuracy": accuracy}))
        records = [{"step": step, "stage": "a", "loss": 1 / step, "lr": 0.1, "dropped": {}} for step in (1, 2, 3)]
        lines = [json.dumps({**record, "skipped_steps": 0, "accuracy": {"scenes": share}}) for record in records]
        (folder / name / "log.jsonl").write_text("\n".join(lines))
    return folder


def table(folder, name):
    with (folder / name).open(newline="") as file:
        return [*csv.DictReader(file)]


def test_seeds_are_folded(sweep, capsys):
    report.main([str(sweep)])
    shown = capsys.readouterr().out
    rows = table(sweep, "designs.csv")
    mean = {(row["model"], row["prompt"]): row for row in rows if row["kind"] == "mean over kinds"}
    assert [row["seeds"] for row in mean.values()] == ["5"] * 5 + ["3"]
    one = mean[MODELS[0], "last"]
    assert float(one["mean"]) == pytest.approx(np.mean(shares(sweep, model=MODELS[0], prompt="last")))
    assert float(one["low"]) < float(one["mean"]) < float(one["high"])
    assert len(rows) == 6 * 3
    assert "no data" in shown
    assert "Jobs: 28 finished, 1 failed, 1 not begun." in shown
    assert "Differences from" not in shown
    markdown = (sweep / "comparison.md").read_text()
    designs = re.findall(r"^\| (model=\S+ prompt=\S+) \| (\d)", markdown, re.M)
    assert len(designs) == 6
    assert {name for name, _ in designs[:2]} == {f"model={model} prompt=sandwich" for model in MODELS}  # best first
    assert "no data" in markdown


def shares(folder, **wanted):
    """Shares of right answers of the finished jobs with some options."""
    results = [json.loads(path.read_text()) for path in folder.glob(f"*/{RESULT}")]
    chosen = [one for one in results if wanted.items() <= one["choices"].items()]
    return [one["accuracy"]["scenes"]["all"]["accuracy"] for one in chosen]


def test_contrasts_are_those_of_the_file(sweep):
    report.main([str(sweep)])
    rows = [row for row in table(sweep, "contrasts.csv") if row["kind"] == "mean over kinds"]
    assert [(row["contrast"], row["pairs"], row["verdict"]) for row in rows] == [
        ("prompt: sandwich - first", "8", "better"),
        ("prompt: sandwich - first, at model=visualrwkv6_small", "5", ""),
        ("prompt: sandwich - first, at model=transformer_small", "3", ""),
        ("(prompt: sandwich - first) changes from model=visualrwkv6_small to transformer_small", "3", NO_DIFFERENCE),
        ("prompt: last - first", "10", NO_DIFFERENCE),
    ]
    assert 0.2 < float(rows[0]["difference"]) < 0.4
    assert float(rows[0]["low"]) > 0.1
    assert float(rows[0]["p"]) == 2 / 2**8
    assert float(rows[0]["p_holm"]) == pytest.approx(3 * 2 / 2**8)
    assert float(rows[0]["smallest_difference"]) > 0
    assert rows[1]["p"] == ""


def test_differences_are_those_of_runs_with_one_seed(sweep):
    report.main([str(sweep)])
    rows = {row["contrast"]: row for row in table(sweep, "contrasts.csv") if row["kind"] == "mean over kinds"}
    models = [
        np.mean(shares(sweep, model=model, prompt="last")) - np.mean(shares(sweep, model=model, prompt="first"))
        for model in MODELS
    ]
    assert float(rows["prompt: last - first"]["difference"]) == pytest.approx(np.mean(models))


def test_single_runs_are_shown_when_asked_for(sweep, capsys):
    report.main([str(sweep), "--runs"])
    shown = capsys.readouterr().out
    assert "Designs: scenes" in shown
    assert "Differences from" in shown
    assert (sweep / "comparison.md").read_text().count("seed=") > 28


def test_the_page_has_a_panel_for_every_kind(sweep):
    report.main([str(sweep)])
    page = (sweep / "comparison.html").read_text()
    panels = re.findall(r'<svg class="wide".*?</svg>', page, re.S)
    assert [re.search(r'class="title">([^<]*)', one)[1] for one in panels] == [
        "scenes: mean over kinds",
        "scenes: colour",
        "scenes: count",
    ]
    assert [one.count("<circle") for one in panels] == [28] * 3
    assert [one.count("<rect") for one in panels] == [6] * 3
    assert "scenes: prompt by model" in page
    assert page.count("model=visualrwkv6_small</text>") == 1
    assert "scenes: quality against seconds of a run" in page
    assert page.count(", on the front") == 1  # all take one second, and one design is the best
    assert page.count("<polygon") == 12  # six designs: loss, accuracy
    assert "scenes: accuracy while training" in page
    assert "<script" not in page


def test_the_answers_in_which_two_designs_differ_most_are_shown(sweep):
    report.main([str(sweep)])
    page = (sweep / "comparison.html").read_text()
    assert re.findall(r"<h3>(scenes: [^<]*)</h3>", page) == [
        f"scenes: prompt={option} against prompt=first, 8 of {number} disagreements"
        for option, number in zip(("sandwich", "last"), re.findall("8 of ([0-9]+) disagreements", page), strict=True)
    ]
    worst = page.partition("prompt=sandwich against prompt=first")[2].partition("</table>")[0]
    assert "<th>prompt=first<th>prompt=sandwich" in worst
    assert re.search(r"<td class=wrong>no \(\d of 8 runs\) \(0\.\d\d\)</td><td class=right>yes \(\d of 8 runs\)", worst)
    assert worst.count("of 8 runs") == 2 * 8
    assert "answers are shown without their image; first image" in page  # these runs name no data


def test_accuracies_without_the_image_are_beside_the_designs(sweep):
    report.main([str(sweep)])
    assert re.search(r"^\| chance \|  \| 100.0% \| 100.0% \| 100.0% \|$", (sweep / "comparison.md").read_text(), re.M)


def test_a_wide_table_goes_by_blocks_and_no_name_is_cut(capsys, monkeypatch):
    monkeypatch.setattr(report, "MAX_WIDTH", 60)
    monkeypatch.setenv("COLUMNS", "60")
    names = ["model=visualrwkv6_small prompt=sandwich", "b"]
    report._print("t", ["design", "one", "two", "three"], [[name, "1" * 12, "2" * 12, "3"] for name in names])
    shown = capsys.readouterr().out
    assert shown.count(names[0]) == 3
    assert all(column in shown for column in ("one", "two", "three"))
    assert max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize("case", ["one seed", "no answers"])
def test_a_sweep_that_cannot_be_folded_is_compared_run_by_run(sweep, capsys, monkeypatch, case):
    if case == "one seed":
        monkeypatch.setattr(fold, "read_answers", None)  # is not called
    for path in sweep.glob(f"*/{RESULT}"):
        if case == "no answers":
            (path.parent / "answers.jsonl").unlink()
        elif json.loads(path.read_text())["choices"]["seed"] != "1":
            path.unlink()
    report.main([str(sweep)])
    shown = capsys.readouterr().out
    assert "Designs: scenes" not in shown
    assert "transformer_small" in shown
    assert not (sweep / "designs.csv").exists()


def test_a_run_with_other_questions_is_left_out(sweep, capsys):
    [first, *_] = sorted(sweep.glob("*/answers.jsonl"))
    first.write_text(first.read_text().replace("image", "drawing"))
    report.main([str(sweep)])
    assert "is left out" in capsys.readouterr().out


def test_a_task_that_is_not_finished_is_named(sweep, capsys):
    task = next(sweep.glob(f"*/{RESULT}")).parent / TASKS / "pope"
    task.mkdir(parents=True)
    (task / SETTINGS).write_text("{}")
    report.main([str(sweep)])
    assert "pope/result.json: the task is not finished" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "contrast", [{"option": "last"}, {"group": "prompt", "option": "a", "against": "b", "to": "c"}]
)
def test_a_damaged_contrast_is_refused(sweep, contrast):
    path = sweep / "sweep.yaml"
    path.write_text(to_yaml({**yaml.safe_load(path.read_text()), "contrasts": [contrast]}))
    with pytest.raises(ConfigError, match=r"sweep.yaml is damaged"):
        report.main([str(sweep)])


def scores(gains):
    """Runs of two options for every seed, where the second one is better by a gain, without noise."""
    runs = [SweepRun(f"{seed}", {"prompt": one}, f"{seed}", {}, []) for seed in range(len(gains)) for one in ("a", "b")]
    right = np.random.default_rng(0).uniform(0.2, 0.5, (len(gains), 40))
    values = np.stack([one + gain * place for one, gain in zip(right, gains, strict=True) for place in (0, 1)])
    return Scores(runs, values, ["x"] * 40, np.arange(40))


def test_a_slope_is_that_of_least_squares():
    """Accuracy rises by `gain` each time that the tokens double, and by another one with another prompt."""
    gains, tokens = {"first": 0.05, "last": -0.02}, ("1", "4", "16", "64")
    rng, runs, values = np.random.default_rng(0), [], []
    for prompt, gain in gains.items():
        for number in tokens:
            for seed in range(3):
                runs.append(SweepRun(f"{len(runs)}", {"tokens": number, "prompt": prompt}, str(seed), {}, ()))
                values.append(0.3 + gain * np.log2(int(number)) + rng.normal(0, 0.02, 8))
    scored = Scores(runs, np.array(values), ["a", "b"] * 4, np.arange(8))
    asked = [{"group": "tokens", "slope": "log2", "by": "prompt"}]
    whole, first, last, change = differences(asked, scored)
    for found, prompts in ((whole, ["first", "last"]), (first, ["first"]), (last, ["last"])):
        rows = [place for place, run in enumerate(runs) if run.options["prompt"] in prompts]
        places = [np.log2(int(runs[row].options["tokens"])) for row in rows]
        expected = np.polyfit(places, np.array(values)[rows].mean(axis=1), 1)[0]
        assert found.estimates.mean.value == pytest.approx(expected)
    assert change.estimates.mean.value == pytest.approx(last.estimates.mean.value - first.estimates.mean.value)
    assert change.name == "(tokens: each time it doubles) changes from prompt=first to last"
    asked_of = [replace(ScoredReply("", "", "", "", 0.0), kind=kind) for kind in scored.kinds]
    shown = replace(scored, values=scored.values > 0.4, questions=asked_of, replies=[[""] * 8] * len(runs))
    shown = replace(shown, runs=[replace(run, result={"config": {}}) for run in runs])
    assert "s: tokens=64 against tokens=1, " in differing_answers("s", asked, shown)[0]
    missing = replace(scored, runs=runs[1:], values=scored.values[1:])
    assert differences(asked, missing)[0].number == whole.number - 1, "a seed without one of the options has no slope"


def test_few_pairs_are_not_enough_for_a_verdict():
    contrast = {"group": "prompt", "option": "b", "against": "a"}
    for number, verdict in ((3, TOO_FEW), (5, TOO_FEW), (6, "better")):
        [found] = differences([contrast], scores([0.1] * number))
        assert (found.p, found.verdict) == (2 / 2**number, verdict)
    [worse] = differences([{**contrast, "option": "a", "against": "b"}], scores([0.1] * 6))
    assert worse.verdict == "worse"
    [nothing] = differences([{**contrast, "option": "c"}], scores([0.1] * 6))
    assert (nothing.number, nothing.estimates, nothing.p) == (0, None, None)
    found = differences([contrast] * 2, scores([0.1] * 6))
    assert [one.corrected for one in found] == [2 * 2 / 2**6] * 2
    assert [one.verdict for one in found] == [TOO_FEW] * 2


def test_seeds_that_differ_much_are_not_enough_for_a_verdict():
    """An interval takes differences for normal; the sign-flip test does not."""
    [found] = differences([{"group": "prompt", "option": "b", "against": "a"}], scores([0.14] * 5 + [-0.01] * 5))
    assert found.estimates.mean.low > 0
    assert found.p == 2 * 2**5 / 2**10
    assert found.verdict == ONLY_INTERVAL


def test_a_run_that_is_asked_under_conditions_is_one_seed():
    """Three answers of a run to the same question are no three runs."""
    plain = scores([0.1, 0.2, 0.05, 0.15, 0.1, 0.12])
    contrast = {"group": "prompt", "option": "b", "against": "a", "by": "shots"}
    runs = [replace(run, options={**run.options, "shots": shots}) for shots in ("0", "1", "2") for run in plain.runs]
    plain = replace(plain, runs=[replace(run, name=f"{n}") for n, run in enumerate(plain.runs)])
    runs = [replace(run, name=f"{n % len(plain.runs)}") for n, run in enumerate(runs)]
    under = replace(plain, runs=runs, values=np.concatenate([plain.values] * 3))
    [alone] = differences([{**contrast, "by": None}], plain)
    whole, *parts = differences([contrast], under)
    assert (whole.number, whole.p) == (alone.number, alone.p)
    assert whole.estimates.mean == pytest.approx(alone.estimates.mean)
    assert [one.number for one in parts] == [6] * 5


def test_a_kind_that_is_always_right_is_not_certain():
    """Of 20 images without a wrong answer, up to 16.8 % wrong answers are possible: 0.832^20 is 0.025."""
    every = scores([0.1] * 3)
    values = np.where(np.arange(40) < 20, 1.0, every.values > 0.4)
    every = replace(every, values=values, kinds=["easy"] * 20 + ["hard"] * 20)
    [found] = analyse(Fold(SweepPlan(), scores={"s": every})).values()
    for design in found.designs.values():
        assert design.kinds["easy"][:3] == pytest.approx((1, 0.025 ** (1 / 20), 1))
        assert design.kinds["hard"].low < design.kinds["hard"].value < design.kinds["hard"].high


def test_the_front_holds_what_no_other_design_beats():
    designs = {"slow and good": (9, 0.9), "fast": (1, 0.5), "slow": (9, 0.4), "between": (4, 0.7), "worse": (5, 0.7)}
    assert pareto_front(designs) == ["fast", "between", "slow and good"]
    assert pareto_front({"a": (1, 0.5), "b": (1, 0.5)}) == ["a", "b"]


def test_an_interaction_needs_two_options_of_both_keys():
    assert interaction("s", scores([0.1] * 3), {}, "prompt", "model") == ""
    runs = scores([0.1] * 3)
    both = [
        replace(run, options={**run.options, "model": "<m>"[: 2 + number % 2]}) for number, run in enumerate(runs.runs)
    ]
    every = replace(runs, runs=both)
    estimates = {name: one.mean for name, one in analyse(Fold(SweepPlan(), scores={"s": every}))["s"].designs.items()}
    drawn = interaction("s", every, estimates, "prompt", "model")
    assert "&lt;m&gt;" in drawn
    assert "<m>" not in drawn
