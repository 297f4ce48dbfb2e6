"""Held-out questions under conditions, beside the plain ones: the condition stands as a further key of the grid."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmrnn.config.sweep import SEED
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.conditions import by_condition, condition_of, key_of
from mmrnn.evaluation.reports.pairing import Replies, ScoredReply
from mmrnn.evaluation.sweeps.scores import SweepRun

Entry = tuple[SweepRun, Sequence[ScoredReply]]
"""A run, under a condition where it has one, and its replies."""

PLAIN = "0"
"""Value of a condition that is not there."""


def by_split(runs: Sequence[SweepRun], replies: Mapping[str, Replies]) -> dict[str, list[Entry]]:
    """Return runs with their replies by split or task; those under conditions of one sort are one split with the plain.

    Args:
        runs: of the sweep, in its order.
        replies: of every run by split, by its name.
    """
    plain: dict[str, list[Entry]] = {}
    under: dict[str, dict[str, list[tuple[str, Entry]]]] = {}
    for run in runs:
        answers = replies[run.name]
        for split, found in answers.items():
            condition = condition_of(split)
            if condition is None or condition.split not in answers:
                plain.setdefault(split, []).append((run, found))
                continue
            split, key, value = condition
            name = by_condition(split, key)
            every = under.setdefault(name, {}).setdefault(run.name, [(PLAIN, (_at(run, key, PLAIN), answers[split]))])
            every.append((value, (_at(run, key, value), found)))
    found_under = {
        name: [entry for every in of_runs.values() for _, entry in sorted(every, key=lambda one: int(one[0]))]
        for name, of_runs in under.items()
    }
    return plain | found_under


def _at(run: SweepRun, key: str, value: str) -> SweepRun:
    return replace(run, options={**run.options, key: value})


def contrasts_of(split: str, runs: Sequence[SweepRun], plan: SweepPlan) -> Sequence[Mapping[str, Any]]:
    """Return the contrasts that are asked for on a split: those of the sweep.

    Under conditions: each of them against the plain question, by the first key of the grid, and how each contrast of
    the sweep changes with them.

    Args:
        split: or label of a task.
        runs: of the split.
        plan: of the sweep.
    """
    key = key_of(split)
    if key is None:
        return plan.contrasts
    values = dict.fromkeys(run.options[key] for run in runs)
    crossed = [name for name, options in plan.grid.items() if name != SEED and len(options) > 1][:1]
    by = {"by": crossed[0]} if crossed else {}
    found = [{"group": key, "option": value, "against": PLAIN, **by} for value in values if value != PLAIN]
    for contrast in plan.contrasts:
        changing = {**contrast, "by": key}
        found += [changing] if changing not in found else []
    return found
