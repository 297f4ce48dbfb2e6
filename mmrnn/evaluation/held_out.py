"""Held-out questions of a run: answers, their accuracy, and baselines."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from mmrnn.evaluation.accuracy import Answer, Evaluation, evaluate, scores
from mmrnn.evaluation.blind_baselines import baselines
from mmrnn.inference.assistant import Assistant
from mmrnn.types import MapDataset, Sample

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
            answers = [replace(answer, index=numbers[answer.index]) for answer in evaluation.answers]
            found[name] = Evaluation(answers, evaluation.left_out)
        return found


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
