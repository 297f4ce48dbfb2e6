"""Held-out questions of a run: answers, their accuracy, and baselines."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from mmrnn.evaluation.accuracy import Answer, Evaluation, evaluate, mean, scores
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

    def evaluate(self, max_samples: int | None = None, track: Track | None = None) -> dict[str, Evaluation]:
        """Answer the first `max_samples` questions of every split; None: all.

        Args:
            track: name of a split -> wrapper of the iteration over its batches, to show progress.
        """
        return {
            name: evaluate(
                self.assistants[name],
                [split[index] for index in range(len(split))[:max_samples]],
                batch_size=self.batch_size,
                max_new_tokens=self.max_new_tokens,
                track=iter if track is None else track(name),
            )
            for name, split in self.splits.items()
        }

    def accuracy(self, max_samples: int | None = None) -> dict[str, float]:
        """Return the mean accuracy over the kinds of question of every split, for its first `max_samples` samples."""
        return {name: mean(scores(found.answers)) for name, found in self.evaluate(max_samples).items()}


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
            "majority": blind[kind].majority,
            "blind": blind[kind].blind,
            "right": score.right,
            "total": score.total,
        }
        for kind, score in scores(answers).items()
    }
