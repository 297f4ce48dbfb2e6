"""Baselines that do not use the image: a guess, the majority answer and question-only lookup."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mmrnn.types.sample import TAG, Sample


class Baseline(NamedTuple):
    """Accuracies (0 to 1) of one kind of question.

    Attributes:
        majority: of the most frequent answer among the evaluated samples, the best constant.
        blind: of the most frequent answer to the same question in training; the best constant where it is not asked
            there.
        samples: number of evaluated samples.
        chance: of a guess among the different answers of the evaluated samples, each as likely as the others.
    """

    majority: float
    blind: float
    samples: int
    chance: float


def chance(answers: Sequence[str]) -> float:
    """Return the accuracy of a guess among the different answers that some questions have."""
    return 1 / len({*answers})


def majority(answers: Sequence[str]) -> tuple[str, float]:
    """Return the most frequent answer of some questions, and its accuracy."""
    [(constant, times)] = Counter(answers).most_common(1)
    return constant, times / len(answers)


def pairs(sample: Sample) -> Iterator[tuple[str, str]]:
    """Yield every question of a sample, without image tags, and its reply."""
    for question, reply in zip(sample.turns, sample.turns[1:], strict=False):
        if question.role == "user" and reply.role == "assistant":
            yield question.text.replace(TAG, "").strip(), reply.text


def baselines(train: Iterable[Sample], test: Iterable[Sample]) -> dict[str, Baseline]:
    """Return the baselines of each kind of test sample, in order of first appearance, for their last replies."""
    replies: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in train:
        for question, reply in pairs(sample):
            replies[question][reply] += 1
    asked: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for sample in test:
        *_, last = pairs(sample)
        asked[sample.kind].append(last)
    found = {}
    for kind, questions in asked.items():
        answers = [reply for _, reply in questions]
        constant, share = majority(answers)
        guesses = (replies[text].most_common(1)[0][0] if text in replies else constant for text, _ in questions)
        right = sum(guess == reply for guess, (_, reply) in zip(guesses, questions, strict=True))
        found[kind] = Baseline(share, right / len(questions), len(questions), chance(answers))
    return found
