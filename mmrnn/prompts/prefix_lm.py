"""Captions of which the first words are given: prefix language modelling."""

from collections.abc import Sequence
from hashlib import sha256

from mmrnn.prompts.image_position import place_images
from mmrnn.prompts.rwkv_chat import split
from mmrnn.prompts.spans import Span
from mmrnn.types import Prompt
from mmrnn.types.sample import TAG, Turn


class PrefixLM(Prompt):
    """The images and the first words of a caption are read, its other words learnt (BLIP-2 with FlanT5, arXiv
    2301.12597, where the encoder reads and the decoder learns).

    At which word a caption is cut is drawn from the caption itself, so that runs can be repeated; at least one word is
    learnt. What the user says beside the images is left out, except where a caption is to be generated: then it
    is the beginning of it.

    Args:
        end: what closes a caption.
    """

    def __init__(self, *, end: str = "</s>") -> None:
        self.end, self.stops = end, (end,)

    def spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """See `Prompt`. One turn of the user, and one reply."""
        if [turn.role for turn in turns] not in (["user"], ["user", "assistant"]):
            raise ValueError(f"{len(turns)} turns are no caption; take a prompt for dialogues")
        [asked] = place_images([turns[0].text], images, "first", "")
        words = turns[-1].text.split() if len(turns) == 2 else []
        shown = TAG * asked.count(TAG) if images else ""
        if not words:
            return split(shown + (asked.replace(TAG, "").strip() if images else asked.strip()), images)
        cut = int.from_bytes(sha256(" ".join(words).encode()).digest()[:4], "big") % len(words)
        rest = " ".join(words[cut:]) + self.end
        return [*split(shown + " ".join(words[:cut]), images), Span(f" {rest}" if cut else rest, target=True)]
