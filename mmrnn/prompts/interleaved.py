"""Documents of text and images in any order."""

from collections.abc import Sequence

from mmrnn.prompts.image_position import place_images
from mmrnn.prompts.spans import split_at_tags
from mmrnn.types import Prompt, Span, Turn


class Interleaved(Prompt):
    """Turns one after the other, without roles or a template; all text is supervised.

    The pre-training of VILA on web pages and on pairs of image and caption (arXiv 2312.07533). White space around an
    image is removed.

    Args:
        end: end of a document, supervised.
    """

    def __init__(self, *, end: str = "</s>") -> None:
        self.end, self.stops = end, (end,)

    def spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """Format turns, in any order of roles; tags count in the user's turns only. See `Prompt.spans`.

        Raises:
            ValueError: tags and images do not agree.
        """
        placed = iter(place_images([turn.text for turn in turns if turn.role == "user"], images, "inline"))
        texts = [next(placed) if turn.role == "user" else turn.text for turn in turns]
        generating = turns[-1].role == "assistant" and not turns[-1].text.strip()
        spans = split_at_tags(" ".join(text.strip() for text in texts if text.strip()), images)
        spans = [span if span.image else Span(span.text.strip(), target=not generating) for span in spans]
        spans = [span for span in spans if span.image or span.text]
        if generating:
            return spans
        if spans and not spans[-1].image:
            return [*spans[:-1], Span(spans[-1].text + self.end, target=True)]
        return [*spans, Span(self.end, target=True)]
