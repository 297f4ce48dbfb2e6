"""Contrasts of a sweep: differences that were asked for before its first run, over pairs of runs with the same seed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, log2
from typing import Any, NamedTuple

import numpy as np

from mmrnn.config.overrides import override_text
from mmrnn.evaluation.reports.resampling import CONFIDENCE
from mmrnn.evaluation.reports.seed_statistics import SeedEstimates, holm, of_combinations, sign_flip_p
from mmrnn.evaluation.reports.statistics import is_significant
from mmrnn.evaluation.sweeps.scores import Scores, SweepRun

NO_DIFFERENCE = "no difference shown"
NO_INTERVAL = "one pair of seeds, or one image: no interval"
TOO_FEW = "interval excludes 0; too few pairs for p < 0.05"
ONLY_INTERVAL = "interval excludes 0, but p is not below 0.05"


class Pairs(NamedTuple):
    """Differences of paired runs: options of each pair that both have, its seed, and weights of the runs in it."""

    options: Sequence[Mapping[str, str]]
    seeds: Sequence[str]
    weights: np.ndarray


@dataclass(frozen=True)
class Difference:
    """Result of a contrast, of its part at one option of another key, or of its change between two such options.

    Attributes:
        name: in words.
        number: of seed pairs.
        estimates: of the difference; None: there is no pair of runs.
        p: of the sign-flip test; None: it was not asked for, and is no part of the correction.
        corrected: p by Holm over all that were asked for.
        verdict: in words; empty: it was not asked for.
        main: it is the contrast itself, over all other keys.
    """

    name: str
    number: int
    estimates: SeedEstimates | None
    p: float | None = None
    corrected: float | None = None
    verdict: str = ""
    main: bool = False


def differences(contrasts: Sequence[Mapping[str, Any]], scores: Scores) -> list[Difference]:
    """Return the results of contrasts on a split, with p corrected over all of them.

    Args:
        contrasts: of the sweep: `group`, `option` and `against` or `slope`, and `by` where there is one.
        scores: on the split.
    """
    found = [one for contrast in contrasts for one in _of(contrast, scores)]
    tested = [one for one in found if one.p is not None]
    corrected = iter(holm([one.p for one in tested if one.p is not None]))
    return [_judged(one, next(corrected), len(tested)) if one.p is not None else one for one in found]


def _judged(one: Difference, corrected: float, number: int) -> Difference:
    if one.estimates is None:
        return one
    interval = one.estimates.mean.interval
    if isnan(interval.low):
        verdict = NO_INTERVAL
    elif is_significant(interval, corrected):
        verdict = "better" if interval.value > 0 else "worse"
    elif is_significant(interval, None):
        verdict = TOO_FEW if number * 2 / 2**one.number >= 1 - CONFIDENCE else ONLY_INTERVAL
    else:
        verdict = NO_DIFFERENCE
    return replace(one, corrected=corrected, verdict=verdict)


def _of(contrast: Mapping[str, Any], scores: Scores) -> list[Difference]:
    """Results of one contrast: the difference, and by the options of another key where it names one."""
    group, by = contrast["group"], contrast.get("by")
    runs = Pairs([run.options for run in scores.runs], [run.seed for run in scores.runs], np.eye(len(scores.runs)))
    if contrast.get("slope"):
        name = f"{group}: each time it doubles"
        pairs = _weighted(runs, group, _slope([run.options[group] for run in scores.runs if group in run.options]))
    else:
        option, against = (override_text(contrast[name]) for name in ("option", "against"))
        name = f"{group}: {option} - {against}"
        pairs = _weighted(runs, group, {option: 1.0, against: -1.0})
    found = [replace(_tested(name, pairs, scores), main=True)]
    options = list(dict.fromkeys(one[by] for one in pairs.options if by in one)) if by else []
    if len(options) < 2:
        return found
    for each in options:
        inside = [place for place, one in enumerate(pairs.options) if one.get(by) == each]
        part = Pairs(
            [pairs.options[place] for place in inside], [pairs.seeds[place] for place in inside], pairs.weights[inside]
        )
        found.append(replace(_tested(f"{name}, at {by}={each}", part, scores), p=None))
    for each in options[1:]:
        change = _weighted(pairs, str(by), {each: 1.0, options[0]: -1.0})
        found.append(_tested(f"({name}) changes from {by}={options[0]} to {each}", change, scores))
    return found


def _slope(options: Sequence[str]) -> dict[str, float]:
    """Weights of options whose sum with their values is the least-squares slope against the base-2 logarithm."""
    places = {option: log2(float(option)) for option in options}
    middle = sum(places.values()) / len(places) if places else 0.0
    spread = sum((place - middle) ** 2 for place in places.values())
    return {option: (place - middle) / spread for option, place in places.items()} if spread else {}


def _weighted(runs: Pairs, key: str, weights: Mapping[str, float]) -> Pairs:
    """Weighted sums of the runs with some options of a key, where all else and the seed are the same.

    Where a run with one of the options is missing there is no sum.
    """
    whole = matched_runs(runs.options, runs.seeds, key, weights)
    rests = [runs.options[next(iter(places.values()))] for places in whole.values()]
    sums = [sum(weights[option] * runs.weights[place] for option, place in places.items()) for places in whole.values()]
    return Pairs(
        [{name: value for name, value in options.items() if name != key} for options in rests],
        [seed for _, seed in whole],
        np.array(sums).reshape(len(whole), runs.weights.shape[-1]),
    )


def _average_conditions(pairs: Pairs, runs: Sequence[SweepRun]) -> Pairs:
    """Average pairs of the same runs: a run that was evaluated under several conditions is one seed."""
    first = {run.name: run.options for run in reversed(runs)}
    conditions = {key for run in runs for key, value in run.options.items() if value != first[run.name][key]}
    places: dict[frozenset[str], list[int]] = {}
    for place, weights in enumerate(pairs.weights):
        places.setdefault(frozenset(runs[each].name for each in np.flatnonzero(weights)), []).append(place)
    kept = [same[0] for same in places.values()]
    return Pairs(
        [{key: value for key, value in pairs.options[place].items() if key not in conditions} for place in kept],
        [pairs.seeds[place] for place in kept],
        np.stack([pairs.weights[same].mean(axis=0) for same in places.values()]),
    )


def matched_runs(
    options: Sequence[Mapping[str, str]], seeds: Sequence[str], key: str, wanted: Collection[str]
) -> dict[tuple[str, str], dict[str, int]]:
    """Return groups of runs that have one of each wanted option of a key, where all else and the seed are the same.

    Args:
        options: of every run.
        seeds: of every run.
        key: of the wanted options.
        wanted: options; a group lacks none.

    Returns:
        The rest and the seed of each group -> option -> place of its run.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for place, (given, seed) in enumerate(zip(options, seeds, strict=True)):
        if (option := given.get(key)) in wanted:
            found.setdefault((_rest(given, key), seed), {}).setdefault(str(option), place)
    return {which: places for which, places in found.items() if wanted and places.keys() == {*wanted}}


def _rest(options: Mapping[str, str], key: str) -> str:
    return repr(sorted((name, value) for name, value in options.items() if name != key))


def _tested(name: str, pairs: Pairs, scores: Scores) -> Difference:
    """Difference of pairs; groups of pairs (all options of the rest of the grid) weigh the same."""
    if not len(pairs.weights):
        return Difference(name, 0, None, verdict="no pair of finished runs with one seed")
    pairs = _average_conditions(pairs, scores.runs)
    rests = [_rest(options, "") for options in pairs.options]
    groups = [sorted({*rests}).index(rest) for rest in rests]
    estimates = of_combinations(scores.resampled, pairs.weights, groups)
    shares = np.array([1 / groups.count(group) for group in groups])
    return Difference(name, len(groups), estimates, sign_flip_p(shares * (pairs.weights @ scores.means()[:, 0])))
