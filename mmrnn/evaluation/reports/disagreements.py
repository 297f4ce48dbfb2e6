"""Questions that two runs or designs answer with different scores, as a part of a page."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from mmrnn.evaluation.reports.pairing import Pair
from mmrnn.evaluation.reports.thumbnails import Thumbnails

MAX_DISAGREEMENTS = 8
"""Most questions of each split and run that the page shows."""

MAX_IMAGES = 4
"""Most images of a question that the page shows."""

MAX_TEXT = 600
"""Most characters of a text that the page shows."""


class Disagreement(NamedTuple):
    """Replies of different score to questions of a split or task.

    Attributes:
        split: or label of the task.
        title: of the two that are compared.
        first: name of the first, such as the baseline.
        second: name of the other.
        pairs: of their replies.
    """

    split: str
    title: str
    first: str
    second: str
    pairs: Sequence[Pair]


def disagreements_html(found: Sequence[Disagreement], images: Thumbnails) -> str:
    """Return the worst disagreements as HTML: the largest differences of scores, those of the first before the second.

    Args:
        found: the comparisons.
        images: of the questions.
    """
    parts = []
    for split, name, first, second, pairs in found:
        shown = sorted(pairs, key=_order)[:MAX_DISAGREEMENTS]
        if shown:
            cells = ("image", "question", "truth", first, second)
            head = "".join(f"<th>{escape(cell)}" for cell in cells)
            body = "".join(f"<tr>{_images(split, pair, images)}{_texts(pair)}</tr>" for pair in shown)
            title = f"{split}: {name}, {len(shown):,} of {len(pairs):,} disagreements"
            parts.append(f"<h3>{escape(title)}</h3><table><tr>{head}</tr>{body}</table>")
    return f"<h2>Disagreements</h2>{''.join(parts)}" if parts else ""


def _order(pair: Pair) -> tuple[float, bool]:
    first, second = (reply.score for reply in pair)
    return -abs(first - second), second > first


def _images(split: str, pair: Pair, images: Thumbnails) -> str:
    reply = pair[0]
    tags = (f'<img alt="" src="{url}"><br>' for url in images.of(split, reply, MAX_IMAGES))
    return f"<td>{''.join(tags)}{escape(_cut(', '.join(reply.images)))}</td>"


def _texts(pair: Pair) -> str:
    scores = [reply.score for reply in pair]
    marks = ["right" if score == max(scores) else "wrong" for score in scores]
    graded = ["" if {*scores} <= {0, 1} else f" ({score:.2f})" for score in scores]
    cells = [f"<td>{escape(_cut(text))}</td>" for text in (pair[0].question, pair[0].truth)]
    for reply, mark, grade in zip(pair, marks, graded, strict=True):
        cells.append(f"<td class={mark}>{escape(_cut(reply.reply) or '(nothing)')}{grade}</td>")
    return "".join(cells)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ... ({len(text):,} characters)"
