"""Chat format of RWKV and VisualRWKV."""

import re
from collections.abc import Sequence

from mmrnn.prompts.boxes import Codec
from mmrnn.prompts.image_position import ImagePosition, place_images
from mmrnn.prompts.spans import split_at_tags
from mmrnn.types import NonNegativeInt, Prompt, Span, Turn

BLANK_LINES = re.compile(r"\n\s*\n")


class RWKVChat(Prompt):
    """`User: {text}` and `Assistant: {text}`, each turn closed by an empty line (VisualRWKV arXiv 2406.13362, v6.0).

    A system message stands before them as `System: {text}` (RWKV-7's chat). Inside a turn any run of blank lines
    becomes one line break, so that an empty line always ends a turn. Supervised are the replies, from the space after
    `Assistant:` to the empty line.

    Args:
        image_position: position of the images of a turn, see `place_images`.
        boxes: form in which the model writes boxes, if its data had them; None: it writes none.
        image_mark: id of a token behind every image; None: there is none (VisualRWKV v7.01 with alignment).
        text_mark: id of a token behind every turn without an image, supervised behind a reply; None: there is none.
    """

    stops = ("\n\n", "\n \n", "\r\n\r\n")
    """Forms of the empty line. No turn of the training data holds one, so each of them ends a reply."""

    def __init__(
        self,
        *,
        image_position: ImagePosition = "first",
        boxes: Codec | None = None,
        image_mark: NonNegativeInt | None = None,
        text_mark: NonNegativeInt | None = None,
    ) -> None:
        self.image_position, self.boxes = image_position, boxes
        self.image_mark, self.text_mark = image_mark, text_mark

    def spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """Format turns, in any order of roles. See `Prompt.spans`.

        Raises:
            ValueError: tags and images do not agree, or a reply before the last is empty.
        """
        return self._write(turns, images)

    def appended_spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """Format turns with `sandwich` as questions that came one after the other. See `Prompt.appended_spans`."""
        return self._write(turns, images, appended=True)

    def _write(self, turns: Sequence[Turn], images: int, appended: bool = False) -> list[Span]:
        questions = [turn.text for turn in turns if turn.role == "user"]
        placed = iter(place_images(questions, images, self.image_position, appended=appended))
        spans = []
        for index, turn in enumerate(turns):
            if turn.role == "assistant":
                text = _collapse_blank_lines(turn.text)
                if not text and index + 1 < len(turns):
                    raise ValueError(f"turn {index + 1} is an empty reply; only the last one may be, to be generated")
                spans.append(Span("Assistant:"))
                if text:
                    spans += self._end_turn([Span(f" {text}\n\n", target=True)])
            elif turn.role == "system":
                spans += self._end_turn([Span(f"System: {_collapse_blank_lines(turn.text)}\n\n")])
            else:
                spans += self._end_turn(split_at_tags(f"User: {_collapse_blank_lines(next(placed))}\n\n", images))
        return spans

    def _end_turn(self, spans: list[Span]) -> list[Span]:
        """Spans of a turn with a mark behind each image, or behind a turn without one."""
        if not any(span.image for span in spans):
            return spans if self.text_mark is None else [*spans, Span(target=spans[-1].target, mark=self.text_mark)]
        if self.image_mark is None:
            return spans
        return [one for span in spans for one in ([span, Span(mark=self.image_mark)] if span.image else [span])]


def _collapse_blank_lines(text: str) -> str:
    return BLANK_LINES.sub("\n", text.strip())
