"""MME: two questions about every image, one true and one false."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from mmrnn.evaluation.metrics.items import YES_NO, Metric, Scores, TextItem, by_kind, mean, score_each, single_truth
from mmrnn.types import implements

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def read_mme(reply: str) -> Literal["yes", "no", "other"]:
    """Return the word that the first four characters hold, without case and periods; `y` and `n` alone count too.

    The rule of MME's `calculation.py`, as lmms-eval (`tasks/mme/utils.py`) has it.
    """
    text = reply.lower().strip().replace(".", "")
    if text in ("y", "n"):
        return "yes" if text == "y" else "no"
    if "yes" in text[:4]:
        return "yes"
    return "no" if "no" in text[:4] else "other"


@implements(Metric)
def mme(items: Sequence[TextItem]) -> Scores:
    """Score 1 where the reply is read as the reference says, else 0.

    Args:
        items: with the reference `yes` or `no`; `kind` is the subtask; the two questions of an image have the
            same `image`.

    Returns:
        Scores; the summary has for each subtask `KIND/accuracy` of questions, `KIND/accuracy_plus` of images with both
        questions right, and `KIND/score`, their sum times 100; `perception` and `cognition` sum the scores of their
        ten and four subtasks, each where all of them are there.

    Raises:
        ValueError: no items, an id twice, another reference, an unknown subtask, or an image without two questions.
    """
    scores = score_each(items, lambda item: read_mme(item.reply) == single_truth(item, YES_NO))
    summary: dict[str, float] = {}
    for kind, group in by_kind(items).items():
        if kind not in PERCEPTION + COGNITION:
            known = ", ".join(PERCEPTION + COGNITION)
            raise ValueError(f"question {group[0].id!r} is of kind {kind!r}; MME has {known}")
        accuracy, plus = mean([scores[item.id] for item in group]), _accuracy_plus(group, scores)
        summary |= {
            f"{kind}/accuracy": accuracy,
            f"{kind}/accuracy_plus": plus,
            f"{kind}/score": 100 * (accuracy + plus),
        }
    for name, kinds in (("perception", PERCEPTION), ("cognition", COGNITION)):
        if all(f"{kind}/score" in summary for kind in kinds):
            summary[name] = sum(summary[f"{kind}/score"] for kind in kinds)
    return Scores(scores, summary)


def _accuracy_plus(items: Sequence[TextItem], scores: dict[str, float]) -> float:
    """Return the share of images with both questions right."""
    asked, right = Counter(item.image for item in items), Counter()
    for item in items:
        right[item.image] += int(scores[item.id])
    for image, count in asked.items():
        if count != 2:
            raise ValueError(f"image {image!r} of kind {items[0].kind!r} has {count} questions; MME pairs two of each")
    return mean([float(right[image] == 2) for image in asked])
