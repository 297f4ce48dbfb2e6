"""Seeds that a sweep gets by the rule of its file: when, which ones, and by which command."""

from dataclasses import replace
from math import nan

import pytest

from mmrnn.config.sweep import read_sweep
from mmrnn.config.sweep_plan import plan_sweep
from mmrnn.evaluation.reports.seed_statistics import SeedEstimate, SeedEstimates
from mmrnn.evaluation.sweeps.contrasts import Difference
from mmrnn.evaluation.sweeps.more_seeds import more_seeds

CARD = {"grid": {"prompt": ["first", "last"]}, "seeds": [0, 1], "more_seeds": [2, 3]}
COMMAND = ["sweep=prompt", "workers=0"]


def plan(command=(), **changes):
    made = plan_sweep(["data.scenes=9"], read_sweep({**CARD, **changes}), card="prompt")
    return replace(made, command=[*COMMAND, *command])


def contrast(low, high, *, main=True):
    mean = SeedEstimate((low + high) / 2, low, high, 0.01, 5.0)
    return Difference("last - first", 2, SeedEstimates(mean, {}), p=0.5, corrected=0.5, main=main)


@pytest.mark.parametrize(
    ("low", "high", "open_"),
    [
        (-0.01, 0.03, True),
        (-0.03, 0.01, True),
        (0.0, 0.02, True),
        (-0.019, 0.019, False),
        (0.001, 0.03, False),
        (-0.03, -0.001, False),
        (nan, nan, False),
    ],
)
def test_seeds_are_added_where_no_difference_and_one_that_matters_are_possible(low, high, open_):
    assert bool(more_seeds(plan(), [contrast(low, high)])) == open_


def test_the_command_has_all_seeds_once():
    found = more_seeds(plan(command=["sweep.seeds=[0,1]"]), [contrast(-0.01, 0.03)])
    assert found == (
        "Both no difference and one of 2% are possible for last - first. By the rule of the file, seeds 2, 3 are to be "
        "added, once: `mmrnn train -m sweep=prompt workers=0 'sweep.seeds=[0,1,2,3]'`."
    )


def test_they_are_added_once():
    assert more_seeds(plan(seeds=[0, 1, 2, 3]), [contrast(-0.01, 0.03)]) == ""


def test_a_file_without_the_rule_asks_for_none():
    assert more_seeds(plan(more_seeds=[]), [contrast(-0.01, 0.03)]) == ""


def test_interactions_and_contrasts_without_pairs_ask_for_none():
    assert more_seeds(plan(), [contrast(-0.01, 0.03, main=False), Difference("last - first", 0, None, main=True)]) == ""
