"""How many replies are right, by the kind of question."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mmrnn.inference.assistant import Assistant
from mmrnn.types.sample import TAG, Sample


@dataclass(frozen=True)
class Answer:
    """One question, what is true and what was replied."""

    kind: str
    question: str
    truth: str
    reply: str

    @property
    def right(self) -> bool:
        return normal(self.reply) == normal(self.truth)


@dataclass(frozen=True)
class Score:
    """So many right of so many."""

    right: int
    total: int

    @property
    def share(self) -> float:
        return self.right / self.total if self.total else 0.0


def normal(text: str) -> str:
    """What two answers are compared by: words in lower case, without articles and punctuation at the ends."""
    words = re.sub(r"\s+", " ", text.strip().strip(".!?\"'").lower())
    return re.sub(r"^(a|an|the) ", "", words)


def question_of(sample: Sample) -> str:
    """The last question of a sample, without the place of its image."""
    asked = [turn.text for turn in sample.turns if turn.role == "user"]
    return asked[-1].replace(TAG, "").strip()


def truth_of(sample: Sample) -> str:
    """The last reply of a sample."""
    return [turn.text for turn in sample.turns if turn.role == "assistant"][-1]


def evaluate(
    assistant: Assistant,
    samples: Sequence[Sample],
    *,
    batch_size: int = 64,
    max_new_tokens: int = 24,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Answer]:
    """Ask every sample its last question.

    Args:
        max_new_tokens: of a reply.
        track: wraps the iteration over the batches' first numbers, to show progress.
    """
    answers = []
    for start in track(range(0, len(samples), batch_size)):
        group = [samples[index] for index in range(start, min(start + batch_size, len(samples)))]
        for sample, reply in zip(group, assistant.answer(group, max_new_tokens=max_new_tokens), strict=True):
            answers.append(Answer(sample.kind, question_of(sample), truth_of(sample), reply))
    return answers


def scores(answers: Iterable[Answer]) -> dict[str, Score]:
    """Right and total for every kind, in the order in which the kinds first come."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for answer in answers:
        counts[answer.kind][0] += answer.right
        counts[answer.kind][1] += 1
    return {kind: Score(right, total) for kind, (right, total) in counts.items()}


def mean(by_kind: dict[str, Score]) -> float:
    """The mean over kinds, each kind counting the same."""
    return sum(score.share for score in by_kind.values()) / len(by_kind) if by_kind else 0.0
