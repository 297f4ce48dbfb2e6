"""Result of a run: answers to the held-out questions, report and `result.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrnn.data.left_out import LeftOut
from mmrnn.evaluation.accuracy import Evaluation, mean, scores
from mmrnn.evaluation.conditions import base_split
from mmrnn.evaluation.held_out import MAX_BLIND_SAMPLES, accuracy_with_baselines
from mmrnn.evaluation.reports.answer_file import write_answers
from mmrnn.evaluation.reports.run_folder import RESULT, read_log
from mmrnn.evaluation.reports.run_report import write_report
from mmrnn.io.atomic import replace_file
from mmrnn.training.build import TrainingParts
from mmrnn.training.error import TrainingError
from mmrnn.training.run_facts import run_facts
from mmrnn.training.saving.checkpoint_folder import remove_all
from mmrnn.types import MapDataset


def write_result(
    out: Path,
    parts: TrainingParts,
    splits: Mapping[str, MapDataset],
    found: Mapping[str, Evaluation],
    cfg: Mapping[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Write the answers to held-out questions, the report and, last, `result.json`; remove its checkpoints.

    Checkpoints that are kept for good stay.

    Args:
        out: folder of the run.
        parts: of the run.
        splits: held-out samples.
        found: answers to them.
        cfg: the configuration as plain data.
        seconds: that the run has taken, over all attempts at it.

    Returns:
        The content of `result.json`.

    Raises:
        TrainingError: there are held-out samples, and none of them can be asked.
    """
    answers = {name: evaluation.answers for name, evaluation in found.items()}
    write_answers(out, answers)
    train = [parts.data[index] for index in range(min(len(parts.data), MAX_BLIND_SAMPLES))] if answers else []
    accuracy = {name: accuracy_with_baselines(one, splits[base_split(name)], train) for name, one in answers.items()}
    if answers and not any(answers.values()):
        reasons = "; ".join(str(evaluation.left_out) for evaluation in found.values())
        raise TrainingError(f"no held-out question can be asked, so nothing is known of the model in {out}: {reasons}")
    means = [mean(scores(answers[name])) for name in splits if answers[name]]
    log = read_log(out)
    result = {
        "config": {name: value for name, value in cfg.items() if name != "choices"},
        "choices": cfg["choices"],
        "seed": cfg["seed"],
        "parameters": sum(parameter.numel() for parameter in parts.model.parameters()),
        "seconds": round(seconds, 1),
        "loss": log[-1]["loss"],
        "skipped_steps": sum(record["skipped_steps"] for record in log),
        "left_out": {
            "records": LeftOut.of(parts.data.left_out()).record(),
            "train": LeftOut.merge(record["dropped"] for record in log).record(),
            "held_out": {name: evaluation.left_out.record() for name, evaluation in found.items()},
        },
        "accuracy": accuracy,
        "objective": 1 - sum(means) / len(means) if means else log[-1]["loss"],
        **run_facts(parts, splits, log),
    }
    write_report(out, result, log, splits, answers, cfg)
    text = json.dumps(result, indent=1)
    replace_file(out / RESULT, lambda path: path.write_text(text))
    remove_all(out)
    return result
