"""Option letters, as LLaVA reads them for ScienceQA."""

import re
from collections.abc import Sequence

from mmrnn.evaluation.metrics.items import Metric, Scores, TextItem, counts_as_wrong, mean, score_each, single_truth
from mmrnn.types import implements

LETTERS = "ABCDE"


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
def option_letter(items: Sequence[TextItem], *, letters: str = LETTERS) -> Scores:
    """Score 1 where the reply chooses the letter of the reference, else 0.

    Args:
        items: with one letter as reference.
        letters: that options may have.

    Returns:
        Scores; the summary has the accuracy and `unread`, the number of replies in which no letter is found.

    Raises:
        ValueError: no items, an id twice, several references, or one that is no letter.
    """
    scores = score_each(items, lambda item: read_letter(item.reply, letters) == single_truth(item, letters))
    unread = sum(counts_as_wrong(item) or read_letter(item.reply, letters) is None for item in items)
    return Scores(scores, {"accuracy": mean([*scores.values()]), "unread": unread})
