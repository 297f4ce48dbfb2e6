"""Held-out questions of a run: answers, their accuracy, and baselines."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from mmrnn.data.left_out import LeftOut
from mmrnn.evaluation.accuracy import NO_REPLY, Answer, Evaluation, answer_of, evaluate, examination, scores
from mmrnn.evaluation.blind_baselines import baselines
from mmrnn.evaluation.conditions import Conditions, Examples, at_distance, with_shots
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.delayed import delayed_replies, question_row
from mmrnn.types import MapDataset, Sample

MAX_BLIND_SAMPLES = 30_000
"""Training samples that the blind baseline counts; more do not change it."""

Track = Callable[[str], Callable[[Iterable[int]], Iterable[int]]]


class HeldOut:
    """Evaluation splits, and the assistants that answer their questions.

    Args:
        splits: samples by the name of their split.
        assistants: of each split, all of one model; they differ in their cached features.
        batch_size: questions that are answered at once.
        max_new_tokens: of an answer.
    """

    def __init__(
        self,
        splits: Mapping[str, MapDataset],
        assistants: Mapping[str, Assistant],
        *,
        batch_size: int,
        max_new_tokens: int,
    ) -> None:
        self.splits, self.assistants = splits, assistants
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens

    def evaluate(
        self, max_samples: int | None = None, track: Track | None = None, *, first: int = 0, every: int = 1
    ) -> dict[str, Evaluation]:
        """Answer the first `max_samples` questions of every split; None: all.

        Args:
            max_samples: of each split.
            track: name of a split -> wrapper of the iteration over its batches, to show progress.
            first: question to begin with, from 0.
            every: ask each n-th question from there on.
        """
        found = {}
        for name, split in self.splits.items():
            numbers = range(len(split))[:max_samples][first::every]
            evaluation = evaluate(
                self.assistants[name],
                [split[index] for index in numbers],
                batch_size=self.batch_size,
                max_new_tokens=self.max_new_tokens,
                track=iter if track is None else track(name),
            )
            found[name] = _renumbered(evaluation, numbers)
        return found

    def evaluate_under(
        self,
        conditions: Conditions,
        text: Sequence[int] = (),
        track: Track | None = None,
        *,
        first: int = 0,
        every: int = 1,
    ) -> dict[str, Evaluation]:
        """Answer the questions of every split under each condition, by names of `at_distance` and `with_shots`.

        Args:
            conditions: beside the plain question.
            text: ids of the text behind the images, as many as the largest distance.
            track: as of `evaluate`.
            first: as of `evaluate`.
            every: as of `evaluate`.
        """
        found = {}
        for name, split in self.splits.items():
            numbers = range(len(split))[first::every]
            samples = [split[index] for index in numbers]
            under = self._at_distances(name, samples, conditions.distances, text, track) if conditions.distances else {}
            under |= self._with_shots(name, samples, numbers, conditions.shots, track) if conditions.shots else {}
            found |= {label: _renumbered(one, numbers) for label, one in under.items()}
        return found

    def _with_shots(
        self, name: str, samples: Sequence[Sample], numbers: Sequence[int], shots: Sequence[int], track: Track | None
    ) -> dict[str, Evaluation]:
        """Evaluations of a split behind every number of examples."""
        examples, found = Examples(self.splits[name]), {}
        for each in shots:
            label = with_shots(name, each)
            found[label] = evaluate(
                self.assistants[name],
                samples,
                batch_size=self.batch_size,
                max_new_tokens=self.max_new_tokens,
                track=iter if track is None else track(label),
                written=lambda index, asked, each=each: examples.before(numbers[index], asked, each),
            )
        return found

    def _at_distances(
        self, name: str, samples: Sequence[Sample], distances: Sequence[int], text: Sequence[int], track: Track | None
    ) -> dict[str, Evaluation]:
        """Evaluations of a split at every distance; what is left out is the same at all of them."""
        assistant, left_out = self.assistants[name], LeftOut()
        answers: dict[int, list[Answer]] = {distance: [] for distance in distances}
        tracked = iter if track is None else track(at_distance(name, max(distances)))
        for start in tracked(range(0, len(samples), self.batch_size)):
            group = {}
            for index in range(start, min(start + self.batch_size, len(samples))):
                if (asked := examination(samples[index])) is None:
                    left_out.add(NO_REPLY, samples[index].id)
                    continue
                try:
                    group[index] = asked, question_row(assistant, asked)
                except ValueError as fault:  # an image that cannot be opened, too
                    left_out.add(str(fault), asked.id)
            rows = [row for _, row in group.values()]
            options = {"max_new_tokens": self.max_new_tokens}
            found = delayed_replies(assistant, rows, distances, text, **options) if rows else []
            for distance, replies in zip(distances, found, strict=False):
                answers[distance] += [
                    answer_of(index, asked, reply)
                    for (index, (asked, _)), reply in zip(group.items(), replies, strict=True)
                ]
        return {at_distance(name, distance): Evaluation(one, left_out) for distance, one in answers.items()}


def _renumbered(evaluation: Evaluation, numbers: Sequence[int]) -> Evaluation:
    """Evaluation whose answers have the index of their sample in the split, and not among those that were asked."""
    answers = [replace(answer, index=numbers[answer.index]) for answer in evaluation.answers]
    return Evaluation(answers, evaluation.left_out)


def accuracy_with_baselines(
    answers: Sequence[Answer], split: MapDataset, train: Iterable[Sample]
) -> dict[str, dict[str, float]]:
    """Return the accuracy and the baselines without the image of every kind of question.

    Args:
        answers: to questions of the split.
        split: its samples; those without an answer are left out of the baselines too.
        train: training samples, for the blind baseline.
    """
    blind = baselines(train, (split[answer.index] for answer in answers))
    return {
        kind: {
            "accuracy": score.share,
            "chance": blind[kind].chance,
            "majority": blind[kind].majority,
            "blind": blind[kind].blind,
            "right": score.right,
            "total": score.total,
        }
        for kind, score in scores(answers).items()
    }
