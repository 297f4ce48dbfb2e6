"""A run: from a configuration to a trained model, its figures and its report, in one folder that can be gone on with.

The folder holds `config.yaml`, `log.jsonl` (a record for every few steps), `snapshot.pt` while the run is under way,
and in the end `model.safetensors`, `answers.jsonl`, `result.json` and `report.html`.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmrnn.checkpoints import config_file
from mmrnn.checkpoints.save import save
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import find_target, instantiate, positional_names
from mmrnn.config.tree import plain
from mmrnn.data.collate import Collator
from mmrnn.data.sampler import ResumableBatchSampler, ShuffledOrder
from mmrnn.evaluation.accuracy import Answer, evaluate, mean, scores
from mmrnn.evaluation.blind_baselines import baselines
from mmrnn.evaluation.reports.run_report import write_report
from mmrnn.inference.assistant import Assistant
from mmrnn.io.atomic import replace_file
from mmrnn.model.build import build
from mmrnn.model.vlm import VLM
from mmrnn.training import resume
from mmrnn.training.feature_cache import bytes_needed, cache_features
from mmrnn.training.resume import Progress
from mmrnn.training.stage import Stage
from mmrnn.training.trackers import jsonl
from mmrnn.training.trackers.console import Console
from mmrnn.training.trainer import run_stage
from mmrnn.types import Batch, MapDataset, Objective
from mmrnn.types.sample import Sample

LOG, RESULT, ANSWERS = "log.jsonl", "result.json", "answers.jsonl"

MAX_BLIND_SAMPLES = 30_000
"""Training samples that the blind baseline learns from; more make no difference to it."""


def train(cfg: Mapping[str, Any], out: Path, choices: Mapping[str, str] | None = None) -> float:
    """Train, evaluate and report; a folder whose run was stopped is gone on with, a finished one is left alone.

    Args:
        choices: which option of every group the configuration came from, for the report.

    Returns:
        The share of wrong answers to held-out questions (of the last loss, where nothing is held out).

    Raises:
        ConfigError: the configuration does not fit, or the folder holds another run.
    """
    settled = json.loads(json.dumps({**plain(cfg), "out": None, "choices": dict(choices or {})}))
    settled.pop("hydra", None)
    before = config_file.read_config(out)
    if before is not None and before != settled:
        names = sorted(name for name in {*before, *settled} if before.get(name) != settled.get(name))
        raise ConfigError(f"out: {out} holds a run of another configuration (it differs in {', '.join(names)})")
    if not (out / RESULT).is_file():
        run = Run(settled, out)
        config_file.save_config(out, settled)
        run.train()
        run.finish()
    return json.loads((out / RESULT).read_text())["objective"]


def make_objective(card: Mapping[str, Any], model: VLM, trusted: Sequence[str] = ()) -> Objective:
    """The objective of a card; one that learns joins the model under the name `objective`, for stages to train it.

    Raises:
        ConfigError: the model has not what it asks for.
    """
    wired = [model] if positional_names(find_target(card, trusted)) else []
    try:
        objective = instantiate(card, *wired, trusted=trusted)
    except ValueError as error:
        raise ConfigError(f"objective: {error}") from error
    if isinstance(objective, nn.Module):
        model.objective = objective.to(next(model.parameters()).device)
    return objective


class Run:
    """The parts of one run, built from its configuration."""

    def __init__(self, cfg: Mapping[str, Any], out: Path) -> None:
        self.cfg, self.out, self.watch, self.began = cfg, out, Console(), time.monotonic()
        torch.manual_seed(cfg["seed"])
        self.device = cfg["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = build(cfg, trusted=cfg["trusted"]).to(self.device)
        self.tokenizer, self.prompt, self.data, stages = (
            instantiate(cfg[part], trusted=cfg["trusted"]) for part in ("tokenizer", "prompt", "data", "stage")
        )
        self.objective = make_objective(cfg["objective"], self.model, cfg["trusted"])
        self.stages: dict[str, Stage] = stages
        asked = cfg["evaluate"]["samples"] if self.model.backbone.generates else 0
        self.tests: dict[str, MapDataset] = self.data.held_out(asked) if asked else {}
        self.features: dict[str, Mapping[str, Tensor] | None] = {}
        self.learnt = {
            name for name, _ in self.model.named_parameters() if any(s.trains(name) for s in stages.values())
        }
        self.kept: list[str] | None = None
        if not self.cfg["save_frozen"]:
            self.kept = sorted({*self.learnt, *(name for name, _ in self.model.named_buffers())})
            config_file.check_base(cfg, [name for name in self.model.state_dict() if name not in self.kept])

    def train(self) -> None:
        """Run every stage, from where the folder stands."""
        sizes = {name: parameter.numel() for name, parameter in self.model.named_parameters()}
        total, learning = sum(sizes.values()), sum(sizes[name] for name in self.learnt)
        self.watch.say(f"{self.out}: {total:,} parameters, {learning:,} of them learn, on {self.device}")
        for name, dataset in {"train": self.data, **self.tests}.items():
            self.features[name] = self._cache(name, dataset)
        saved = resume.load(self.out, self.device)
        position: Progress = saved["position"] if saved else Progress()
        samples = steps = 0
        for number, (name, stage) in enumerate(self.stages.items()):
            if number >= position.stage:
                self._stage(number, name, stage, samples, steps, saved if number == position.stage else None)
            samples += stage.steps * stage.batch_size
            steps += stage.steps

    def finish(self) -> None:
        """Keep the model, ask it all that is held out, and write the report."""
        save(self.model, self.out, config=self.cfg, only=self.kept)
        answers = {name: self._ask(name, len(dataset)) for name, dataset in self.tests.items()}
        shown = [self.data[index] for index in range(min(len(self.data), MAX_BLIND_SAMPLES))] if answers else []
        lines = [json.dumps({"split": name, **asdict(answer)}) for name, group in answers.items() for answer in group]
        replace_file(self.out / ANSWERS, lambda path: path.write_text("".join(f"{line}\n" for line in lines)))
        accuracy = {name: self._accuracy(name, group, shown) for name, group in answers.items()}
        loss = jsonl.records(self.out / LOG)[-1]["loss"]
        overall = [mean(scores(group)) for group in answers.values()]
        seconds = time.monotonic() - self.began
        result = {
            "config": {name: value for name, value in self.cfg.items() if name != "choices"},
            "choices": self.cfg["choices"],
            "seed": self.cfg["seed"],
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": round(seconds, 1),
            "loss": loss,
            "accuracy": accuracy,
            "objective": 1 - sum(overall) / len(overall) if overall else loss,
        }
        write_report(self.out, result, jsonl.records(self.out / LOG), self.tests, answers, self.cfg)
        text = json.dumps(result, indent=1)
        replace_file(self.out / RESULT, lambda path: path.write_text(text))
        (self.out / resume.FILE).unlink(missing_ok=True)
        self.watch.table(accuracy)
        self.watch.say(f"{seconds:.0f} s; report: {self.out / 'report.html'}")

    def _cache(self, name: str, dataset: MapDataset) -> Mapping[str, Tensor] | None:
        """The features of all images, where no stage trains the encoder and they fit into memory."""
        modality = self.model.modalities["image"]
        if modality.image.variable_size or self.objective.needs_hidden_states:
            return None
        encoder = {n for n, _ in self.model.named_parameters() if n.startswith("modalities.image.encoder.")}
        if not encoder or encoder & self.learnt or not self.cfg["feature_cache_gib"]:
            return None
        images = list(dataset.images())
        if not images:
            return None  # the data set does not list its images
        size = bytes_needed(modality, len(images)) / 2**30
        if size > self.cfg["feature_cache_gib"]:
            many = f"the features of {len(images)} images take {size:.1f} GiB"
            self.watch.say(
                f"{many}, more than feature_cache_gib={self.cfg['feature_cache_gib']}: they are computed at every step"
            )
            return None
        track = self.watch.tracker(f"features: {name}")
        how = {
            "batch_size": self.cfg["evaluate"]["batch_size"],
            "device": self.device,
            "precision": self.cfg["precision"],
        }
        return cache_features(modality, images, **how, track=track)

    def _stage(self, number: int, name: str, stage: Stage, samples: int, steps: int, saved: dict | None) -> None:
        stage.apply_freezing(self.model)
        optimizer = stage.optimizer(self.model)
        start = 0
        if saved is not None:
            resume.restore(saved, self.model, optimizer)
            start = saved["position"].step
        jsonl.truncate_log(self.out / LOG, steps + start)
        recent: list[float] = []
        saved_at = time.monotonic()

        with self.watch.bar() as bar:
            task = bar.add_task(name, total=stage.steps, completed=start)

            def after_step(done: int, loss: float, lr: float) -> None:
                nonlocal saved_at
                recent.append(loss)
                bar.update(task, completed=done, description=f"{name} loss {loss:.3f}")
                last = done == stage.steps
                if done % self.cfg["log_every"] == 0 or last:
                    record = {"step": steps + done, "stage": name, "loss": sum(recent) / len(recent), "lr": lr}
                    recent.clear()
                    every = self.cfg["evaluate"]["every"]
                    if every and done % every == 0 and not last:
                        record["accuracy"] = {test: mean(scores(self._ask(test, 120))) for test in self.tests}
                    jsonl.append(self.out / LOG, record)
                    if last or time.monotonic() - saved_at > self.cfg["save_every_seconds"]:
                        resume.save(self.out, Progress(number, done), self.model, optimizer, self.learnt)
                        saved_at = time.monotonic()

            run_stage(
                self.model,
                stage,
                optimizer,
                self.objective,
                self._batches(stage, samples, start),
                start=start,
                device=self.device,
                precision=self.cfg["precision"],
                after_step=after_step,
            )

    def _batches(self, stage: Stage, samples: int, start: int) -> Iterator[list[Batch]]:
        """The micro-batches of every step from `start` on; `samples` were read in the stages before."""
        micro = stage.batch_size // stage.grad_accum_steps
        collate = Collator(
            self.tokenizer,
            self.prompt,
            dict(self.model.modalities),
            self.features["train"],
            max_length=self.cfg["max_length"],
            pack=self.cfg["pack"],
        )
        order = ShuffledOrder(len(self.data), seed=self.cfg["seed"])
        loader = DataLoader(
            self.data,
            batch_sampler=ResumableBatchSampler(
                lambda n: order(samples + n),
                batch_size=micro,
                steps=stage.steps * stage.grad_accum_steps,
                start_step=start * stage.grad_accum_steps,
            ),
            collate_fn=collate,
            num_workers=self.cfg["workers"],
            # A generator of its own: the loader would draw from the global one, and a run that goes on would differ.
            generator=torch.Generator(),
        )
        batches = iter(loader)
        while step := list(islice(batches, stage.grad_accum_steps)):
            yield [batch for batch in step if batch is not None]

    def _ask(self, test: str, number: int) -> list[Answer]:
        """The answers to the first questions of a test."""
        assistant = Assistant(self.model, self.tokenizer, self.prompt, features=self.features[test])
        dataset, how = self.tests[test], self.cfg["evaluate"]
        samples = [dataset[index] for index in range(min(number, len(dataset)))]
        return evaluate(assistant, samples, batch_size=how["batch_size"], max_new_tokens=how["max_new_tokens"])

    def _accuracy(self, test: str, answers: list[Answer], shown: list[Sample]) -> dict[str, dict[str, float]]:
        """For every kind of question the accuracy, beside what can be had without the image."""
        dataset = self.tests[test]
        blind = baselines(shown, (dataset[index] for index in range(len(dataset))))
        return {
            kind: {
                "accuracy": score.share,
                "majority": blind[kind].majority,
                "blind": blind[kind].blind,
                "right": score.right,
                "total": score.total,
            }
            for kind, score in scores(answers).items()
        }
