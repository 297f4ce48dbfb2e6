"""Finished runs of a sweep, asked again without training: other held-out questions, or conditions of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from mmrnn.config.coerce import coerce, did_you_mean
from mmrnn.config.device import choose_device
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate, parameters
from mmrnn.config.overrides import override_key
from mmrnn.config.settings import EvaluateSettings
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.accuracy import mean, scores
from mmrnn.evaluation.conditions import Conditions, base_split, text_ids
from mmrnn.evaluation.held_out import MAX_BLIND_SAMPLES, HeldOut, accuracy_with_baselines
from mmrnn.evaluation.reports.answer_file import write_answers
from mmrnn.evaluation.reports.run_folder import RESULT, read_result
from mmrnn.evaluation.reports.sweep_file import record_plan
from mmrnn.evaluation.sweeps.job_status import JobStatus, begin_job, job_states
from mmrnn.evaluation.sweeps.results_file import write_results
from mmrnn.evaluation.tasks.plan import images_in_memory
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.feature_cache import encode_images
from mmrnn.inference.load import load
from mmrnn.io.atomic import replace_file
from mmrnn.types import MapDataset, Sample

GROUP = "evaluate."
FEATURE_GIB = 2.0
"""Memory for the features of the images of a split."""

KNOBS = tuple(one.name for one in fields(EvaluateSettings) if one.name not in ("every", "tasks", "root"))


def ask_again(folder: Path, plan: SweepPlan, to: Path, words: Sequence[str]) -> Iterator[str]:
    """Ask the finished runs of a sweep, and write answers and results as those of a sweep into another folder.

    A run that has been asked there is left as it is.

    Args:
        folder: of the sweep.
        plan: of the sweep.
        to: folder of the answers.
        words: `evaluate.KNOB=VALUE`, and `KEY=OPTION,...` of the grid for some of the runs.

    Yields:
        A line for every run.

    Raises:
        ConfigError: a word is neither, no run is chosen, or `to` belongs to another sweep.
        ValueError: a file of a run is damaged.
    """
    settings = {override_key(word).removeprefix(GROUP): _value(word) for word in words if word.startswith(GROUP)}
    chosen = {override_key(word): word.partition("=")[2].split(",") for word in words if not word.startswith(GROUP)}
    if unknown := [key for key in chosen if key not in plan.grid]:
        near = did_you_mean(unknown[0], plan.grid) or f"; the sweep crosses {', '.join(plan.grid)}"
        raise ConfigError(f"{unknown[0]}: it is no key of the grid, and no evaluate.KNOB{near}")
    jobs = [job for job in job_states(folder, plan) if job.state == "finished" and _fits(job, chosen)]
    if not jobs:
        raise ConfigError(f"{folder}: no run is finished, or none has {' '.join(words)}")
    to.mkdir(parents=True, exist_ok=True)
    asked = [word for word in words if word.startswith(GROUP)]
    known = record_plan(to, replace(plan, asked=asked, jobs={job.name: plan.jobs[job.name] for job in jobs}))
    train: dict[str, list[Sample]] = {}
    for job in jobs:
        place = to / job.name
        if (place / RESULT).is_file():
            yield f"asked before: {job}"
            continue
        place.mkdir(exist_ok=True)
        begin_job(place, job.overrides)
        result = _ask(job.result, place, settings, train)
        text = json.dumps(result, indent=1)
        replace_file(place / RESULT, partial(Path.write_text, data=text), len(text))
        yield f"{job}: {1 - result['objective']:.1%}"
    write_results(to, known)


def _value(word: str) -> Any:
    """Value of a knob of `evaluate`.

    Raises:
        ConfigError: there is no such knob, or the value does not fit.
    """
    name = override_key(word).removeprefix(GROUP)
    if name not in KNOBS:
        near = did_you_mean(name, KNOBS) or f"; there are {', '.join(KNOBS)}"
        raise ConfigError(f"{word}: finished runs are not asked with evaluate.{name}{near}")
    try:
        return coerce(yaml.safe_load(word.partition("=")[2]), parameters(EvaluateSettings)[name].annotation)
    except (TypeError, yaml.YAMLError) as fault:
        raise ConfigError(f"{word}: {fault}") from fault


def _fits(job: JobStatus, chosen: Mapping[str, Sequence[str]]) -> bool:
    given = {override_key(word): word.partition("=")[2] for word in job.overrides}
    return all(given.get(key) in options for key, options in chosen.items())


def _with_features(assistant: Assistant, split: MapDataset) -> Assistant:
    """Assistant with the features of all images of a split, which are asked about several times, where they fit."""
    model = assistant.model
    images = {image.key: image for index in range(len(split)) for image in split[index].images}
    most = images_in_memory(model, FEATURE_GIB) if "image" in model.modalities else None
    if not images or most is None or len(images) > most:
        return assistant
    with eval_mode(model):
        features = encode_images(model.modalities["image"].encoder, [*images.values()], device=assistant.reader.device)
    return Assistant(model, assistant.tokenizer, assistant.prompt, features=features)


def _ask(folder: Path, to: Path, settings: Mapping[str, Any], train: dict[str, list[Sample]]) -> dict[str, Any]:
    """Write the answers of a run, and return its result with them."""
    before = read_result(folder)
    config = {**before["config"], "evaluate": {**before["config"]["evaluate"], **settings}}
    evaluate, trusted = config["evaluate"], config.get("trusted") or ()
    assistant = load(str(folder), trusted=trusted)
    assistant.model.to(choose_device(None))
    data: MapDataset = instantiate(config["data"], trusted=trusted)
    splits = data.held_out(evaluate["samples"])
    assistants = {name: _with_features(assistant, split) for name, split in splits.items()}
    questions = HeldOut(
        splits, assistants, batch_size=evaluate["batch_size"], max_new_tokens=evaluate["max_new_tokens"]
    )
    conditions = Conditions.of(evaluate)
    text = text_ids(data, assistant.tokenizer, max(conditions.distances, default=0))
    found = questions.evaluate() | questions.evaluate_under(conditions, text)
    answers = {name: one.answers for name, one in found.items()}
    write_answers(to, answers)
    # Runs of a sweep have the same data, or a few.
    samples = train.setdefault(repr(config["data"]), [])
    if not samples:
        samples += [data[index] for index in range(min(len(data), MAX_BLIND_SAMPLES))]
    accuracy = {name: accuracy_with_baselines(one, splits[base_split(name)], samples) for name, one in answers.items()}
    means = [mean(scores(answers[name])) for name in splits if answers[name]]
    left_out = {**before.get("left_out", {}), "held_out": {name: one.left_out.record() for name, one in found.items()}}
    objective = 1 - sum(means) / len(means) if means else before["objective"]
    return {**before, "config": config, "accuracy": accuracy, "objective": objective, "left_out": left_out}
