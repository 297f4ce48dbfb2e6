"""Soft accuracy over ten answers, as VQAv2, TextVQA, VizWiz and OK-VQA count it."""

from collections.abc import Sequence
from typing import Literal

from mmrnn.evaluation.metrics.items import Metric, Scores, TextItem, kind_means, mean, score_each
from mmrnn.evaluation.metrics.vqa_normalise import clean_punctuation, clean_words, flatten, normalise_m4c
from mmrnn.types import implements

Normalisation = Literal["m4c", "official"]
ANSWERS = 10


@implements(Metric)
def vqa_accuracy(items: Sequence[TextItem], *, normalisation: Normalisation = "m4c") -> Scores:
    """Score each reply by how many of ten people gave it: min(1, others / 3), averaged over who is left out.

    An empty reply equals an empty answer, as with both originals; it is wrong beside any other.

    Args:
        items: with ten references each.
        normalisation: `m4c` normalises every text (LLaVA `llava/eval/m4c_evaluator.py`, whose numbers papers print of
            TextVQA); `official` leaves reply and answers as they are where all ten agree (GT-Vision-Lab/VQA
            `PythonEvaluationTools/vqaEvaluation/vqaEval.py`, behind VQAv2).

    Returns:
        Scores; the summary has `accuracy`, and that of each kind as `KIND/accuracy`.

    Raises:
        ValueError: no items, an id twice, another number of answers, or an unknown normalisation.
    """
    if normalisation not in ("m4c", "official"):
        raise ValueError(f"normalisation={normalisation!r} is unknown; m4c or official fits")
    score = _m4c if normalisation == "m4c" else _official
    for item in items:
        if len(item.truths) != ANSWERS:
            raise ValueError(
                f"question {item.id!r} has {len(item.truths)} answers; VQA accuracy needs {ANSWERS}: take exact match"
            )
    scores = score_each(items, lambda item: score(item.reply, item.truths))
    return Scores(scores, kind_means(items, scores))


def _m4c(reply: str, answers: Sequence[str]) -> float:
    return _agreement(normalise_m4c(reply), [normalise_m4c(answer) for answer in answers])


def _official(reply: str, answers: Sequence[str]) -> float:
    texts = [flatten(text) for text in (reply, *answers)]
    if len(set(texts[1:])) > 1:
        texts = [clean_words(clean_punctuation(text)) for text in texts]
    return _agreement(texts[0], texts[1:])


def _agreement(reply: str, answers: Sequence[str]) -> float:
    """Return the mean over all people of min(1, those of the others who gave the reply / 3)."""
    matches = answers.count(reply)
    return mean([min(1.0, (matches - (answer == reply)) / 3) for answer in answers])
