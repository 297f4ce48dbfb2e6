"""Stored results of a sweep: its file, a row a run, and which answers of every run were right."""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.conditions import base_split, key_of
from mmrnn.evaluation.reports.pairing import ScoredReply
from mmrnn.evaluation.reports.run_folder import NUMBER, field_fault
from mmrnn.evaluation.reports.sweep_file import SWEEP, read_plan
from mmrnn.evaluation.sweeps.by_condition import contrasts_of
from mmrnn.evaluation.sweeps.fold import Fold, options_and_seed
from mmrnn.evaluation.sweeps.results_file import RESULTS
from mmrnn.evaluation.sweeps.scores import Scores, SweepRun, guesses
from mmrnn.io import jsonl

ANSWERS = "answers.jsonl.gz"

MAX_ANSWERS = 2**28
"""Most bytes of the answers when they are unpacked."""

QUESTION_FIELDS: Mapping[str, tuple[type, ...]] = {
    "split": (str,),
    **dict.fromkeys(("ids", "kinds", "truths", "images", "runs"), (list,)),
}
RUN_FIELDS: Mapping[str, tuple[type, ...]] = {"job": (str,), "seconds": NUMBER, "parameters": (int,)}


def read_stored(folder: Path) -> Fold:
    """Read the stored results of a sweep, as its report shows them; there are no replies.

    Raises:
        ValueError: a file is missing or damaged; the message names it.
        ConfigError: `sweep.yaml` is damaged.
    """
    plan = read_plan(folder)
    if plan is None:
        raise ValueError(f"there is no {folder / SWEEP}; store the sweep again (`mmrnn sweep store DIR {folder}`)")
    runs: dict[str, SweepRun] = {}
    for job, record in stored_rows(folder / RESULTS).items():
        options, seed = options_and_seed(plan.jobs.get(job, ()), plan)
        runs[job] = SweepRun(job, options, seed or str(record.get("seed", "")), record, [])
    found = Fold(plan, [*runs.values()])
    for line in stored_questions(folder / ANSWERS):
        try:
            found.scores[line["split"]] = _scores(line, runs, plan)
        except (KeyError, TypeError, ValueError) as fault:
            raise ValueError(f"{folder / ANSWERS} is damaged ({fault!r}); store the sweep again") from fault
    number = Counter(one in runs for one in plan.jobs)
    found.notes.append(f"Jobs: {number[True]:,} finished, {number[False]:,} not finished.")
    return found


def stored_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Read the row of every run, by the name of its job.

    Raises:
        ValueError: the file is missing or damaged.
    """
    rows = {}
    for number, record in enumerate(jsonl.records(path), 1):
        if fault := field_fault(record, RUN_FIELDS):
            raise ValueError(f"{path} is damaged: row {number} {fault}; store the sweep again")
        rows[record["job"]] = record
    return rows


def stored_questions(path: Path) -> list[dict[str, Any]]:
    """Read the questions of every split, with a bit a run and question.

    Raises:
        ValueError: the file is missing or damaged.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}; store the sweep again")
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_ANSWERS + 1)
        if len(content) > MAX_ANSWERS:
            raise ValueError(f"it unpacks to more than {MAX_ANSWERS:,} bytes")
        lines = [json.loads(line) for line in content.decode().splitlines()]
    except (OSError, EOFError, ValueError, RecursionError) as fault:
        raise ValueError(f"{path} is damaged ({fault}); store the sweep again") from fault
    for number, line in enumerate(lines, 1):
        if fault := field_fault(line, QUESTION_FIELDS):
            raise ValueError(f"{path} is damaged: line {number} {fault}; store the sweep again")
    return lines


def _scores(line: Mapping[str, Any], runs: Mapping[str, SweepRun], plan: SweepPlan) -> Scores:
    """Scores of the runs on the questions of a split."""
    split, kinds = line["split"], [*map(str, line["kinds"])]
    texts = zip(line["ids"], line["truths"], kinds, strict=True)
    questions = [ScoredReply(str(id), "", str(truth), "", 0.0, (), kind) for id, truth, kind in texts]
    clusters = np.array(line["images"], int).reshape(len(questions))
    key = key_of(split)
    kept = [runs[one["job"]] for one in line["runs"]]
    if key is not None:
        kept = [
            replace(run, options={**run.options, key: str(one[key])})
            for run, one in zip(kept, line["runs"], strict=True)
        ]
    size = -(-len(questions) // 8)
    bits = [np.frombuffer(base64.b64decode(one["right"], validate=True), np.uint8) for one in line["runs"]]
    values = np.unpackbits(np.stack(bits).reshape(len(kept), size), axis=1, count=len(questions)).astype(float)
    shares = {kind: kept[0].result.get(f"blind.{base_split(split)}.{kind}") for kind in {*kinds}}
    blind = {kind: share for kind, share in shares.items() if isinstance(share, int | float)}
    options = {"baselines": guesses(questions, blind), "contrasts": contrasts_of(split, kept, plan)}
    return Scores(kept, values, kinds, clusters, questions, **options)
