"""Exact-match accuracy of replies, by kind of question."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mmrnn.inference.assistant import Assistant
from mmrnn.types.sample import TAG, Sample


@dataclass(frozen=True)
class Answer:
    """A question, its reference answer and the reply of a model.

    Attributes:
        kind: of the question.
        question: without image tag.
        truth: the reference.
        reply: of the model.
    """

    kind: str
    question: str
    truth: str
    reply: str

    @property
    def right(self) -> bool:
        """True where the normalised reply equals the normalised reference."""
        return normalise_answer(self.reply) == normalise_answer(self.truth)


@dataclass(frozen=True)
class Score:
    """Number of right replies, and of all replies."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """Accuracy, 0 to 1."""
        return self.right / self.total if self.total else 0.0


def normalise_answer(text: str) -> str:
    """Return an answer in lower case, without a leading article and without punctuation at the ends."""
    words = re.sub(r"\s+", " ", text.strip().strip(".!?\"'").lower())
    return re.sub(r"^(a|an|the) ", "", words)


def last_question(sample: Sample) -> str:
    """Return the last question of a sample without image tags."""
    questions = [turn.text for turn in sample.turns if turn.role == "user"]
    return questions[-1].replace(TAG, "").strip()


def last_reply(sample: Sample) -> str:
    """Return the last reply of a sample."""
    return [turn.text for turn in sample.turns if turn.role == "assistant"][-1]


def evaluate(
    assistant: Assistant,
    samples: Sequence[Sample],
    *,
    batch_size: int = 64,
    max_new_tokens: int = 24,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Answer]:
    """Generate replies to the last question of every sample.

    Args:
        assistant: that replies.
        samples: with references.
        batch_size: of generation.
        max_new_tokens: of a reply.
        track: wraps the iteration over the index of each batch's first sample, to show progress.

    Raises:
        ImageError: an image cannot be opened.
    """
    answers = []
    for start in track(range(0, len(samples), batch_size)):
        group = [samples[index] for index in range(start, min(start + batch_size, len(samples)))]
        for sample, reply in zip(group, assistant.answer(group, max_new_tokens=max_new_tokens), strict=True):
            answers.append(Answer(sample.kind, last_question(sample), last_reply(sample), reply))
    return answers


def scores(answers: Iterable[Answer]) -> dict[str, Score]:
    """Return the score of every kind, in order of first appearance."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for answer in answers:
        counts[answer.kind][0] += answer.right
        counts[answer.kind][1] += 1
    return {kind: Score(right, total) for kind, (right, total) in counts.items()}


def mean(by_kind: dict[str, Score]) -> float:
    """Return the unweighted mean accuracy over kinds; 0 without any."""
    return sum(score.share for score in by_kind.values()) / len(by_kind) if by_kind else 0.0
