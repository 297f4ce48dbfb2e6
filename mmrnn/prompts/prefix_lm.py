"""Prefix language modelling of captions."""

from collections.abc import Sequence
from hashlib import sha256

from mmrnn.prompts.image_position import place_images
from mmrnn.prompts.spans import split_at_tags
from mmrnn.prompts.system_turn import split_system
from mmrnn.types import TAG, Prompt, Span, Turn


class PrefixLM(Prompt):
    """The images and the first words of a caption are given, its other words are supervised.

    The pre-training of BLIP-2 with FlanT5 (arXiv 2301.12597), where the encoder reads the prefix and the decoder
    generates the rest. The length of the prefix is derived from a hash of the caption, so that runs are reproducible;
    at least one word is supervised. The words of system and user are left out, except where a caption is to be
    generated: there the user's are its prefix.

    Args:
        end: end of a caption, supervised.
        prefix_end: end of what is given, not supervised: FlanT5's encoder reads texts that end with `</s>`.
    """

    def __init__(self, *, end: str = "</s>", prefix_end: str = "</s>") -> None:
        self.end, self.prefix_end, self.stops = end, prefix_end, (end,)

    def spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """Format one turn of the user and at most one reply. See `Prompt.spans`.

        Raises:
            ValueError: there are other turns, or tags and images do not agree.
        """
        _, turns = split_system(turns)
        if [turn.role for turn in turns] not in (["user"], ["user", "assistant"]):
            raise ValueError(f"{len(turns)} turns are no caption; take a prompt for dialogues")
        [question] = place_images([turns[0].text], images, "first", "")
        words = turns[-1].text.split() if len(turns) == 2 else []
        tags = TAG * question.count(TAG) if images else ""
        if not words:
            prefix = question.replace(TAG, "") if images else question
            return self._given(tags, prefix.strip(), images)
        cut = self._cut(words)
        rest = " ".join(words[cut:]) + self.end
        return [*self._given(tags, " ".join(words[:cut]), images), Span(rest, target=True)]

    @staticmethod
    def _cut(words: Sequence[str]) -> int:
        return int.from_bytes(sha256(" ".join(words).encode()).digest()[:4], "big") % len(words)

    def _given(self, tags: str, prefix: str, images: int) -> list[Span]:
        ends = [Span(self.prefix_end)] if self.prefix_end else []
        return [*split_at_tags(tags, images), *([Span(prefix)] if prefix else []), *ends]
