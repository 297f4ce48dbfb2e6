"""Pages: text with images anywhere in it, all of it learnt."""

from collections.abc import Sequence

from mmrnn.prompts.image_position import place_images
from mmrnn.prompts.rwkv_chat import split
from mmrnn.prompts.spans import Span
from mmrnn.types import Prompt
from mmrnn.types.sample import Turn


class Interleaved(Prompt):
    """No roles and no words of its own: the turns follow one another, and every word of them is learnt. So VILA reads
    pages of the web and pairs of image and caption (arXiv 2312.07533). No blanks are left around an image.

    Args:
        end: what closes a page.
    """

    def __init__(self, *, end: str = "</s>") -> None:
        self.end, self.stops = end, (end,)

    def spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """See `Prompt`. Roles may come in any order; images stand in turns of the user."""
        placed = iter(place_images([turn.text for turn in turns if turn.role == "user"], images, "inline"))
        texts = [next(placed) if turn.role == "user" else turn.text for turn in turns]
        going = turns[-1].role == "assistant" and not turns[-1].text.strip()
        found = split(" ".join(text.strip() for text in texts if text.strip()), images)
        words = [span if span.image else Span(span.text.strip(), target=not going) for span in found]
        words = [span for span in words if span.image or span.text]
        if going:
            return words
        if words and not words[-1].image:
            return [*words[:-1], Span(words[-1].text + self.end, target=True)]
        return [*words, Span(self.end, target=True)]
