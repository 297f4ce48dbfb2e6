"""What can be answered without looking: the measure below which no accuracy means anything."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mmrnn.types.sample import TAG, Sample


class Baseline(NamedTuple):
    """Accuracies (0 to 1) over `samples` samples of a kind."""

    majority: float
    """Always the answer that is most frequent among them: the best constant."""

    blind: float
    """The answer that training gives most often to the very same question, or that constant where it never asks it."""

    samples: int


def pairs(sample: Sample) -> Iterator[tuple[str, str]]:
    """Every question of a sample, without its image's mark, and the reply to it."""
    for question, reply in zip(sample.turns, sample.turns[1:], strict=False):
        if question.role == "user" and reply.role == "assistant":
            yield question.text.replace(TAG, "").strip(), reply.text


def baselines(train: Iterable[Sample], test: Iterable[Sample]) -> dict[str, Baseline]:
    """The baselines of each kind of test sample (judged by its last reply), in the order in which the kinds appear."""
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in train:
        for question, reply in pairs(sample):
            told[question][reply] += 1
    asked: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for sample in test:
        *_, last = pairs(sample)
        asked[sample.kind].append(last)
    found = {}
    for kind, questions in asked.items():
        [(constant, times)] = Counter(reply for _, reply in questions).most_common(1)
        guesses = (told[text].most_common(1)[0][0] if text in told else constant for text, _ in questions)
        right = sum(guess == reply for guess, (_, reply) in zip(guesses, questions, strict=True))
        found[kind] = Baseline(times / len(questions), right / len(questions), len(questions))
    return found
