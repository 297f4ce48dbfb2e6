"""The report of a run says first what is special about it, and needs no colour to be read."""

import math
import re

import pytest

from mmrnn.config.compose import compose_with_choices
from mmrnn.config.tree import plain
from mmrnn.evaluation.accuracy import Answer
from mmrnn.evaluation.reports.run_report import write_report
from mmrnn.evaluation.reports.run_settings import differing_choices, differing_settings
from mmrnn.evaluation.reports.svg import chart
from mmrnn.types import Sample

NONE_LEFT_OUT = {"total": 0, "reasons": {}}
RESULT = {
    "parameters": 9,
    "seconds": 1.0,
    "seed": 0,
    "loss": 1.0,
    "skipped_steps": 0,
    "left_out": {"records": NONE_LEFT_OUT, "train": NONE_LEFT_OUT, "held_out": {}},
    "accuracy": {},
}


def composed(*overrides):
    cfg, choices = compose_with_choices(*overrides)
    return plain(cfg), choices


def test_only_what_differs_is_named():
    cfg, choices = composed("connector=mlp", "connector.depth=3", "stage.instruct.steps=9")
    assert differing_choices(choices) == {"connector": ("mlp", "mlp_maps")}
    assert differing_settings(cfg, choices) == {
        "connector.depth": ("3", "2"),
        "stage.instruct.steps": ("9", "720"),
    }
    assert next(iter(differing_choices(composed("model=transformer_small")[1]))) == "model"
    cfg, choices = composed()
    assert differing_choices(choices) == differing_settings(cfg, choices) == {}
    assert differing_settings(cfg, choices | {"connector": "my_own"}) is None


def test_cards_at_places_of_their_own_are_known():
    added = ("stage=align_then_instruct", "+schedule@stage.align.schedule=linear", "data=few_shot")
    cfg, choices = composed(*added, "data@data.data=questions", "stage.align.steps=9")
    assert differing_choices(choices)["schedule@stage.align.schedule"] == ("linear", "None")
    settings = differing_settings(cfg, choices)
    assert settings is not None
    assert settings.keys() == {"stage.align.steps"}


RECORD = {"step": 2, "loss": 1.5, "accuracy": {"scenes": 0.5}}


def written(folder, *log):
    """Text of a report of two answers, with some records of the log."""
    cfg, choices = composed("connector=mlp", "connector.depth=3")
    answers = [Answer("count", "how many?", truth, "one", 0) for truth in ("one", "two")]
    result = {**RESULT, "choices": choices}
    write_report(folder, result, log, {"scenes": [Sample(())]}, {"scenes": answers}, cfg)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def page(tmp_path):
    return written(tmp_path, RECORD)


def test_a_page_begins_with_what_is_special(page):
    order = [page.index(text) for text in ("<h2>Choices", "mlp_maps", "<h2>Settings", "connector.depth", "<svg")]
    assert order == sorted(order)
    assert page.index("<details><summary>all settings") < page.index("backbone:")


def test_right_and_wrong_differ_without_colour(page):
    assert "&check; one</b></figcaption>" in page
    assert "&cross; one</b> (truth: two)" in page


def test_a_single_record_is_a_dot(page):
    assert page.count("<circle") == 1


def test_accuracy_has_a_chart_where_it_was_measured_more_than_once(tmp_path, page):
    assert "held-out accuracy" not in page
    several = written(tmp_path, RECORD, RECORD | {"step": 4})
    assert several.count("<polyline") == 2
    assert ">held-out accuracy, first questions of each split</text>" in several


def test_lines_have_their_names_with_their_colours_below_the_chart():
    shown = chart("accuracy", {"scenes": [(0, 0.1), (9, 0.5)], "<style>": [(0, 0.2), (9, 0.4)]}, percent=True)
    for name in ("scenes", "&lt;style&gt;"):
        assert f">{name}</text>" in shown
    strokes = [part.partition('"')[0] for part in shown.split('stroke="')[1:]]
    assert all(strokes.count(stroke) == 2 for stroke in strokes), "a line, and a sample of it"
    assert "<text" in chart("loss", {"loss": [(0, 1.0), (9, 0.5)]})
    assert chart("empty", {"a": []}) == ""


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([4.07, 0.15], ["0", "1", "2", "3", "4", "5"]),
        ([0.0, 0.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([-1.5, 2.0], ["-2", "-1", "0", "1", "2"]),
        ([1200, 30], ["0", "500", "1000", "1500"]),
        ([0.031, math.nan, math.inf], ["0", "0.01", "0.02", "0.03", "0.04"]),
    ],
)
def test_ticks_are_round_values_around_the_line(values, labels):
    shown = chart("loss", {"loss": [*enumerate(values)]})
    assert re.findall(r'text-anchor="end">([-\d.e+]+)</text>', shown) == labels
    [points] = re.findall(r'points="([^"]*)"', shown)
    assert len(points.split()) == sum(map(math.isfinite, values))
    assert all(0 <= float(number) <= 460 for pair in points.split() for number in pair.split(","))
