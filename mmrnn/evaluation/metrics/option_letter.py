"""Option letters, as LLaVA reads them for ScienceQA."""

import re
from collections.abc import Mapping, Sequence

from mmrnn.evaluation.metrics.items import (
    Metric,
    Scores,
    TextItem,
    counts_as_wrong,
    kind_means,
    mean,
    score_each,
    single_truth,
)
from mmrnn.types import implements

LETTERS = "ABCDE"

ORDERS = 10**6
"""Difference of the ids of a question with its options in two orders."""


def read_letter(reply: str, letters: str = LETTERS) -> str | None:
    """Return the letter that a reply chooses; None: no letter, or several.

    A reply is the letter alone, begins with it, a period and a blank, or says once `The answer is X` with one more
    character behind (LLaVA `llava/eval/eval_science_qa.py`, whose period stands for any character).
    """
    if reply and reply in tuple(letters):
        return reply
    if len(reply) >= 3 and reply[0] in letters and reply[1:3] == ". ":
        return reply[0]
    found = re.findall(r"The answer is ([A-Z]).", reply)
    return found[0] if len(found) == 1 else None


@implements(Metric)
def option_letter(
    items: Sequence[TextItem], *, letters: str = LETTERS, alone: bool = False, circular: bool = False
) -> Scores:
    """Score 1 where the reply chooses the letter of the reference, else 0.

    Args:
        items: with one letter as reference.
        letters: that options may have.
        alone: only a reply that is the letter and nothing else counts (LLaVA `scripts/convert_seed_for_submission.py`).
        circular: the summary has `circular`, too: the share of questions that are right with their options in every
            order, whose ids are the same modulo 10^6 (MMBench, arXiv 2307.06281).

    Returns:
        Scores; the summary has `accuracy`, that of each kind as `KIND/accuracy`, and `unread`, the number of replies in
        which no letter is found.

    Raises:
        ValueError: no items, an id twice, several references, one that is no letter, or an id that is no number where
            `circular`.
    """

    def read(item: TextItem) -> str | None:
        reply = item.reply if not alone or item.reply in tuple(letters) else ""
        return None if counts_as_wrong(item) else read_letter(reply, letters)

    scores = score_each(items, lambda item: read(item) == single_truth(item, letters))
    summary = kind_means(items, scores) | {"unread": sum(read(item) is None for item in items)}
    return Scores(scores, summary | ({"circular": _circular(scores)} if circular else {}))


def _circular(scores: Mapping[str, float]) -> float:
    """Return the share of questions that are right in every order of their options."""
    orders: dict[int, float] = {}
    for id, score in scores.items():
        if not id.isdecimal():
            raise ValueError(f"id {id!r} is no number: the orders of a question have one id modulo {ORDERS}")
        orders[int(id) % ORDERS] = min(score, orders.get(int(id) % ORDERS, 1.0))
    return mean([*orders.values()])
