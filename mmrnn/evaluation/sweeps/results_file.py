"""Table of the results of a sweep: `results.jsonl`, one flat row a finished job, for `pandas.read_json(lines=True)`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mmrnn.config.overrides import override_key
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.reports.run_folder import read_result
from mmrnn.evaluation.sweeps.job_status import JobStatus, job_states
from mmrnn.io import jsonl

RESULTS = "results.jsonl"

TIMES = ("seconds", "samples_per_second", "peak_memory_gib")
"""Columns that differ between two runs that compute the same."""

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]{1,2}")

GUESSES = ("chance", "majority", "blind")
"""Accuracies without the image."""

LEFT = frozenset({"config", "choices", "accuracy", "left_out"})
"""Parts of a result that are no values of their own."""


def write_results(folder: Path, plan: SweepPlan) -> list[JobStatus]:
    """Write the table of a sweep, in the order of its jobs.

    Returns:
        The state of every job.

    Raises:
        ValueError: a result or a note is damaged; the message names it.
        DiskFullError: there is no space for it.
    """
    while True:
        states = [*job_states(folder, plan)]
        jsonl.replace(folder / RESULTS, [row(one) for one in states if one.state == "finished"])
        # Another process on the same folder may have finished a job, and written its table before this one.
        if [one.state for one in job_states(folder, plan)] == [one.state for one in states]:
            return states


def row(job: JobStatus) -> dict[str, Any]:
    """Return the row of a finished job: its choices and overrides, its figures, and accuracies by split and kind.

    Raises:
        ValueError: its result is damaged.
    """
    result = read_result(job.result)
    choices = {group: None if option == str(None) else option for group, option in result["choices"].items()}
    found: dict[str, Any] = {"job": job.name, **choices}
    for word in job.overrides:
        if (key := override_key(word)) not in found:
            found[key] = value_of(word)
    for name, value in result.items():
        if isinstance(value, Mapping):
            found |= {} if name in LEFT else {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            found["objective_value" if name == "objective" else name] = value  # `objective` is a group
    splits = result["accuracy"]
    means = {
        split: sum(row["accuracy"] for row in kinds.values()) / len(kinds) for split, kinds in splits.items() if kinds
    }
    found["accuracy"] = sum(means.values()) / len(means) if means else None
    for split, kinds in splits.items():
        found |= {f"accuracy.{split}": means.get(split)}
        for kind, figures in kinds.items():
            found |= {f"accuracy.{split}.{kind}": figures["accuracy"]}
            found |= {f"questions.{split}.{kind}": figures["total"]} if "total" in figures else {}
            found |= {f"{name}.{split}.{kind}": figures[name] for name in GUESSES if name in figures}
    return found


def value_of(override: str) -> Any:
    """Value of an override: a number, a truth value, null or a text; a list or mapping stays text."""
    text = override.partition("=")[2]
    if NUMBER.fullmatch(text):  # YAML reads 1e-3 as a text
        return float(text)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, int | float | str) or value is None else json.dumps(value, default=str)
