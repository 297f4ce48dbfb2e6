"""Results of a sweep in a small folder, for good: its file, a row a run, and which answers of every run were right."""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mmrnn.checkpoints.config_file import to_yaml
from mmrnn.config.overrides import override_key
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.conditions import base_split, key_of
from mmrnn.evaluation.reports.pairing import ScoredReply
from mmrnn.evaluation.reports.run_folder import NUMBER, field_fault
from mmrnn.evaluation.reports.sweep_file import SWEEP, read_plan
from mmrnn.evaluation.sweeps.by_condition import contrasts_of
from mmrnn.evaluation.sweeps.fold import Fold, fold_sweep, options_and_seed
from mmrnn.evaluation.sweeps.job_status import job_states
from mmrnn.evaluation.sweeps.results_file import RESULTS, row
from mmrnn.evaluation.sweeps.scores import Scores, SweepRun, guesses
from mmrnn.io import jsonl
from mmrnn.io.atomic import replace_file

ANSWERS = "answers.jsonl.gz"

MAX_ANSWERS = 2**28
"""Most bytes of the answers when they are unpacked."""

QUESTION_FIELDS: Mapping[str, tuple[type, ...]] = {
    "split": (str,),
    **dict.fromkeys(("ids", "kinds", "truths", "images", "runs"), (list,)),
}
RUN_FIELDS: Mapping[str, tuple[type, ...]] = {"job": (str,), "seconds": NUMBER, "parameters": (int,)}


def store_sweep(folder: Path, plan: SweepPlan, to: Path) -> list[str]:
    """Write the results of the finished jobs of a sweep into a folder; the same results give the same bytes.

    Args:
        folder: of the sweep.
        plan: of the sweep.
        to: folder of the results.

    Returns:
        Sentences about what is missing.

    Raises:
        ValueError: no job is finished, or a file is damaged.
        ImportError: scipy is not installed.
        DiskFullError: there is no space.
    """
    fold = fold_sweep(folder, plan, single=True)
    if not fold.scores:
        raise ValueError(f"{folder} has no finished job with answers; finish the sweep first (`mmrnn sweep rerun`)")
    held_out = {split: scores for split, scores in fold.scores.items() if scores.baselines}
    lines = [_questions(split, scores) for split, scores in held_out.items()]
    kept = {run.name for scores in held_out.values() for run in scores.runs}
    rows = [row(job) for job in job_states(folder, plan) if job.name in kept]
    rows = [{name: value for name, value in one.items() if not str(value).startswith("/")} for one in rows]
    jobs = {name: [word for word in words if not _is_place(word)] for name, words in plan.jobs.items()}
    stored = replace(plan, jobs=jobs, command=[word for word in plan.command if not _is_place(word)])
    plan_text = to_yaml(asdict(stored))
    packed = _packed("".join(json.dumps(line) + "\n" for line in lines).encode())
    to.mkdir(parents=True, exist_ok=True)
    replace_file(to / SWEEP, lambda path: path.write_text(plan_text, encoding="utf-8"), len(plan_text))
    jsonl.replace(to / RESULTS, rows)
    replace_file(to / ANSWERS, lambda path: path.write_bytes(packed), len(packed))
    return fold.notes


def _is_place(word: str) -> bool:
    """True for an override that says where or how jobs run, not which ones, or names a file of one machine."""
    return (key := override_key(word)) == "out" or key.startswith("hydra") or word.partition("=")[2].startswith("/")


def _questions(split: str, scores: Scores) -> dict[str, Any]:
    """Questions of a split, and of every run one bit a question: right, or not."""
    bits = np.packbits(scores.values == 1, axis=1)
    return {
        "split": split,
        "ids": [one.id for one in scores.questions],
        "kinds": [*scores.kinds],
        "truths": [one.truth for one in scores.questions],
        "images": scores.clusters.tolist(),
        "runs": [
            {"job": run.name, "right": base64.b64encode(line.tobytes()).decode(), **_under(split, run)}
            for run, line in zip(scores.runs, bits, strict=True)
        ],
    }


def _under(split: str, run: SweepRun) -> dict[str, str]:
    """Value of the condition under which a run was asked."""
    key = key_of(split)
    return {} if key is None else {key: run.options[key]}


def _packed(content: bytes) -> bytes:
    """Compressed content without a time."""
    buffer = BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(content)
    return buffer.getvalue()


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
    for number, record in enumerate(jsonl.records(folder / RESULTS), 1):
        if fault := field_fault(record, RUN_FIELDS):
            raise ValueError(f"{folder / RESULTS} is damaged: row {number} {fault}; store the sweep again")
        job = record["job"]
        options, seed = options_and_seed(plan.jobs.get(job, ()), plan)
        runs[job] = SweepRun(job, options, seed or str(record.get("seed", "")), record, [])
    found = Fold(plan, [*runs.values()])
    for line in _lines(folder / ANSWERS):
        try:
            found.scores[line["split"]] = _scores(line, runs, plan)
        except (KeyError, TypeError, ValueError) as fault:
            raise ValueError(f"{folder / ANSWERS} is damaged ({fault!r}); store the sweep again") from fault
    number = Counter(one in runs for one in plan.jobs)
    found.notes.append(f"Jobs: {number[True]:,} finished, {number[False]:,} not finished.")
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
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
