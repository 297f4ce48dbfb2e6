"""Exact match, as GQA counts it."""

from collections.abc import Sequence

from mmrnn.evaluation.metrics.items import Metric, Scores, TextItem, kind_means, score_each
from mmrnn.types import implements


@implements(Metric)
def exact_match(items: Sequence[TextItem]) -> Scores:
    """Score 1 where the reply equals one of the references, else 0.

    Case, blanks at the ends and periods behind the last word do not count. An empty reply is wrong. The rule is that
    of LLaVA's GQA converter (`scripts/convert_gqa_for_eval.py`) with GQA's `eval.py`, which compares as written.

    Returns:
        Scores; the summary has `accuracy`, and that of each kind as `KIND/accuracy`.

    Raises:
        ValueError: no items, an id twice, or an item without reference.
    """
    scores = score_each(items, lambda item: _plain(item.reply) in {_plain(truth) for truth in item.truths} - {""})
    return Scores(scores, kind_means(items, scores))


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower().strip()
