"""Exact-match accuracy of replies, by kind of question."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mmrnn.data.image import ImageError
from mmrnn.data.left_out import LeftOut
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.replies import replies
from mmrnn.types.sample import TAG, Sample, Turn

NO_REPLY = "there is no reply to a question"


@dataclass(frozen=True)
class Answer:
    """A question, its reference answer and the reply of a model.

    Attributes:
        kind: of the question.
        question: without image tag.
        truth: the reference.
        reply: of the model.
        index: of the sample in its split.
        id: of the sample, by which the answers of two runs are paired.
        images: keys of its images, by which questions about the same image are found.
    """

    kind: str
    question: str
    truth: str
    reply: str
    index: int = 0
    id: str = ""
    images: tuple[str, ...] = ()

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


def question_of(sample: Sample) -> str:
    """Return the question that an `examination` ends in, without image tags."""
    return sample.turns[-2].text.replace(TAG, "").strip()


def truth_of(sample: Sample) -> str:
    """Return the reference reply of an `examination`."""
    return sample.turns[-1].text


def examination(sample: Sample) -> Sample | None:
    """Cut a dialogue behind its last reply to a question, whose reference is then the last turn; None: it has none.

    Images and observations of the turns that are cut off go with them.
    """
    roles = [turn.role for turn in sample.turns]
    stops = [stop for stop in range(2, len(roles) + 1) if roles[stop - 2 : stop] == ["user", "assistant"]]
    if not stops:
        return None
    kept, cut = sample.turns[: stops[-1]], sample.turns[stops[-1] :]
    observations = {
        modality: given[: len(given) - _count(cut, f"<{modality}>")] for modality, given in sample.observations.items()
    }
    images = sample.images[: len(sample.images) - _count(cut, TAG)]
    return replace(sample, turns=kept, images=images, observations=observations)


def _count(turns: Sequence[Turn], tag: str) -> int:
    return sum(turn.text.count(tag) for turn in turns if turn.role == "user")


class Evaluation(NamedTuple):
    """Answers, and samples that could not be asked."""

    answers: list[Answer]
    left_out: LeftOut


def evaluate(
    assistant: Assistant,
    samples: Sequence[Sample],
    *,
    batch_size: int = 64,
    max_new_tokens: int = 24,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
    written: Callable[[int, Sample], Sample] | None = None,
) -> Evaluation:
    """Generate replies to the last answered question of every sample.

    A sample without such a question, or with an image that cannot be opened, is left out.

    Args:
        assistant: that replies.
        samples: with references.
        batch_size: of generation.
        max_new_tokens: of a reply.
        track: wraps the iteration over the index of each batch's first sample, to show progress.
        written: index and sample -> the sample that is asked in its place, such as one with examples before it; it
            raises ValueError where there is none. None: the sample itself.
    """
    answers, left_out = [], LeftOut()
    for start in track(range(0, len(samples), batch_size)):
        group: dict[int, tuple[Sample, Sample]] = {}
        for index in range(start, min(start + batch_size, len(samples))):
            if (asked := examination(samples[index])) is None:
                left_out.add(NO_REPLY, samples[index].id)
                continue
            try:
                group[index] = asked, written(index, asked) if written else asked
            except ValueError as fault:
                left_out.add(str(fault), asked.id)
        prompts = [prompt for _, prompt in group.values()]
        found = replies(assistant, prompts, max_new_tokens=max_new_tokens)
        for (index, (asked, _)), reply in zip(group.items(), found, strict=True):
            if isinstance(reply, ImageError):
                left_out.add(str(reply), asked.id)
            else:
                answers.append(answer_of(index, asked, reply))
    return Evaluation(answers, left_out)


def answer_of(index: int, asked: Sample, reply: str) -> Answer:
    """Return the answer to an `examination`; `index`: of the sample in its split."""
    images = tuple(image.key for image in asked.images)
    return Answer(asked.kind, question_of(asked), truth_of(asked), reply, index, asked.id, images)


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
