"""Held-out questions of a run: answers, and their accuracy beside that of blind baselines."""

from collections.abc import Iterable, Mapping, Sequence

from mmrnn.evaluation.accuracy import Answer, evaluate, mean, scores
from mmrnn.evaluation.blind_baselines import baselines
from mmrnn.inference.assistant import Assistant
from mmrnn.types import MapDataset, Sample


class HeldOut:
    """Splits that are not trained on, and the assistants that answer their questions.

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

    def answers(self, max_samples: int | None = None) -> dict[str, list[Answer]]:
        """Answers to the first `max_samples` questions of every split; None: to all."""
        return {
            name: evaluate(
                self.assistants[name],
                [split[index] for index in range(len(split))[:max_samples]],
                batch_size=self.batch_size,
                max_new_tokens=self.max_new_tokens,
            )
            for name, split in self.splits.items()
        }

    def accuracy(self, max_samples: int | None = None) -> dict[str, float]:
        """Mean accuracy over the kinds of question, by split."""
        return {name: mean(scores(answers)) for name, answers in self.answers(max_samples).items()}


def beside_baselines(
    answers: Sequence[Answer], split: Iterable[Sample], train: Iterable[Sample]
) -> dict[str, dict[str, float]]:
    """Accuracy by kind of question, beside that of baselines without the image.

    Args:
        answers: to all questions of the split.
        split: its samples.
        train: training samples, for the blind baseline.
    """
    blind = baselines(train, split)
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
