"""Evaluation of a run on held-out questions, spread over its processes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from mmrnn.data.left_out import LeftOut
from mmrnn.evaluation.accuracy import Evaluation, mean, scores
from mmrnn.evaluation.conditions import Conditions, text_ids
from mmrnn.evaluation.held_out import HeldOut, Track
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.feature_cache import FeatureCache
from mmrnn.model.vlm import VLM
from mmrnn.training.build import TrainingParts
from mmrnn.training.distributed.whole import whole_model
from mmrnn.training.ends import StoppedRun, StopSignals
from mmrnn.training.precision import Precision, autocast
from mmrnn.types import MapDataset

INTERIM_QUESTIONS = 120
"""Questions of each split that are asked during training."""


@dataclass(frozen=True)
class Evaluator:
    """Asks the model of a run held-out questions. Each process asks a part of them, of a whole model.

    Attributes:
        parts: of the run.
        splits: held-out samples by the name of their split.
        features: cached features by the name of a split.
        settings: `evaluate` of the configuration.
        signals: one of them ends an evaluation, on all processes.
    """

    parts: TrainingParts
    splits: Mapping[str, MapDataset] = field(default_factory=dict)
    features: Mapping[str, FeatureCache | None] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    signals: StopSignals = field(default_factory=StopSignals)

    def answers(self, max_samples: int | None = None, track: Track | None = None) -> dict[str, Evaluation]:
        """Answer the first `max_samples` questions of every split; None: all, also under the conditions of `evaluate`.

        All processes have all answers.

        Args:
            max_samples: of each split.
            track: name of a split -> wrapper of the iteration over its batches, to show progress.

        Raises:
            StoppedRun: a process received a signal.
        """
        if not self.splits:
            return {}
        world = self.parts.world
        found, stop = {}, 0
        try:
            with self.model() as model:
                questions, tracked = self._held_out(model), self._tracked(track)
                found = questions.evaluate(max_samples, tracked, first=world.rank, every=world.size)
                if max_samples is None:
                    found |= self._under_conditions(questions, tracked)
        except StoppedRun as stopped:
            stop = stopped.number
        if number := int(world.max([stop])[0]):
            raise StoppedRun(number)
        everyone = world.gather(found)
        return {name: _merge([one[name] for one in everyone]) for name in found}

    def _under_conditions(self, questions: HeldOut, track: Track) -> dict[str, Evaluation]:
        """Answers with text behind the images, and with examples before the question."""
        parts, conditions = self.parts, Conditions.of(self.settings)
        if not any(conditions):
            return {}
        text = text_ids(parts.data, parts.tokenizer, max(conditions.distances, default=0))
        return questions.evaluate_under(conditions, text, track, first=parts.world.rank, every=parts.world.size)

    def accuracy(self) -> dict[str, float]:
        """Return the mean accuracy over the kinds of question of every split, for its first questions."""
        return {name: mean(scores(found.answers)) for name, found in self.answers(INTERIM_QUESTIONS).items()}

    @contextmanager
    def model(self) -> Iterator[VLM]:
        """Context of the whole model on this process, with its average weights, in the precision of evaluation.

        Yields:
            A copy where the model is sharded, else the model of the run.
        """
        parts = self.parts
        with autocast(self.precision, parts.device), parts.average.swapped(parts.model):
            yield whole_model(parts.model) if parts.strategy.shards else parts.model

    @property
    def precision(self) -> Precision:
        """Precision of a forward pass: only one in bf16 can read what is frozen in bf16."""
        return "bf16" if self.parts.frozen_dtype == torch.bfloat16 else "fp32"

    def _tracked(self, track: Track | None) -> Track:
        return lambda name: self.signals.checked(iter if track is None else track(name))

    def _held_out(self, model: VLM) -> HeldOut:
        parts = self.parts
        assistants = {
            name: Assistant(model, parts.tokenizer, parts.prompt, features=self.features[name]) for name in self.splits
        }
        return HeldOut(
            self.splits,
            assistants,
            batch_size=self.settings["batch_size"],
            max_new_tokens=self.settings["max_new_tokens"],
        )


def _merge(parts: list[Evaluation]) -> Evaluation:
    answers = sorted((answer for part in parts for answer in part.answers), key=lambda answer: answer.index)
    return Evaluation(answers, LeftOut.merge(part.left_out.record() for part in parts))
