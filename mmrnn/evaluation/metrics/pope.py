"""POPE: objects that are there or not, by LLaVA's rule."""

from collections.abc import Sequence
from typing import Literal

from mmrnn.evaluation.metrics.items import YES_NO, Metric, Scores, TextItem, by_kind, mean, score_each, single_truth
from mmrnn.types import implements


def read_pope(reply: str) -> Literal["yes", "no"]:
    """Return `no` where the first sentence has the word No, no or not, else `yes`, as for an empty reply.

    The sentence ends at the first period; commas are dropped and words end at blanks (LLaVA `llava/eval/eval_pope.py`).
    """
    words = reply.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


@implements(Metric)
def pope(items: Sequence[TextItem]) -> Scores:
    """Score 1 where the reply is read as the reference says, else 0.

    Replies meet their references by id: LLaVA's script takes them line by line. A reply that is too long counts as
    the wrong one of the two.

    Args:
        items: with the reference `yes` or `no`; `kind` is the category (random, popular, adversarial).

    Returns:
        Scores; the summary has `f1`, the mean over categories that papers print, `accuracy` and `yes_share` over all
        questions, and for each category `KIND/` tp, fp, tn, fn, accuracy, precision, recall, f1 and yes_share. `yes`
        is positive.

    Raises:
        ValueError: no items, an id twice, or another reference.
    """
    scores = score_each(items, lambda item: read_pope(item.reply) == single_truth(item, YES_NO))
    tables = {kind: _table(group, scores) for kind, group in by_kind(items).items()}
    summary = {
        "f1": mean([table["f1"] for table in tables.values()]),
        "accuracy": mean([*scores.values()]),
        "yes_share": sum(table["tp"] + table["fp"] for table in tables.values()) / len(items),
    }
    for kind, table in tables.items():
        summary |= {f"{kind}/{name}": value for name, value in table.items()}
    return Scores(scores, summary)


def _table(items: Sequence[TextItem], scores: dict[str, float]) -> dict[str, float]:
    pairs = [(single_truth(item, YES_NO), bool(scores[item.id])) for item in items]
    tp, fn, tn, fp = (pairs.count((truth, right)) for truth in YES_NO for right in (True, False))
    precision, recall = _share(tp, tp + fp), _share(tp, tp + fn)
    return {
        **{"tp": tp, "fp": fp, "tn": tn, "fn": fn},
        "accuracy": _share(tp + tn, len(pairs)),
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * precision * recall, precision + recall),
        "yes_share": _share(tp + fp, len(pairs)),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
