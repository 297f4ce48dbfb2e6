"""Prompts that are a matter of data: Vicuna, LLaVA's plain captions, Llama-2, ChatML, MiniGPT-4, GLM, CogVLM, ..."""

from collections.abc import Sequence
from string import Formatter

from mmrnn.data.sample import TAG, Turn
from mmrnn.prompts.dialogue import split
from mmrnn.prompts.piece import Piece
from mmrnn.prompts.place import Place, place


class Template:
    """User and assistant take turns, each turn written by a form. The defaults are LLaVA-1.5's `v1` (arXiv 2310.03744).

    The forms `first` and `user` say how the user's turn is written up to where the reply begins; they may hold
    `{system}`, and `{text}` or its two halves `{pictures}` (the tags of the turn) and `{words}` (without them). The
    form `reply` says what is learnt, with `{text}`. A BOS is not written here: the tokenizer has it.

    Args:
        past: how a reply is written that other turns follow; it is not learnt then. None: as `reply`, and learnt.
        lead: stands before the last reply, not learnt.
        opening: what the last reply opens with: learnt, and given where a reply is to be generated.
        image: where the pictures of a turn stand.
        picture: how one is written; may hold `{number}`, which counts them from 1.
        gap: between the pictures and the words.
    """

    def __init__(
        self,
        *,
        system: str = "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        first: str = "{system} USER: {text} ASSISTANT:",
        user: str = "USER: {text} ASSISTANT:",
        reply: str = " {text}</s>",
        past: str | None = None,
        lead: str = "",
        opening: str = "",
        stops: tuple[str, ...] = ("</s>",),
        image: Place = "first",
        picture: str = TAG,
        gap: str = "\n",
    ) -> None:
        for name, form, known in (
            ("first", first, {"system", "text", "words", "pictures"}),
            ("user", user, {"system", "text", "words", "pictures"}),
            ("reply", reply, {"text"}),
            ("past", past or "", {"text"}),
            ("picture", picture, {"number"}),
        ):
            if unknown := {field for _, field, _, _ in Formatter().parse(form) if field is not None} - known:
                raise ValueError(f"{name} ({form!r}) holds {{{unknown.pop()}}}; it may hold {sorted(known)}")
        if picture.count(TAG) != 1:
            raise ValueError(f"picture ({picture!r}) must hold {TAG} once, where the visual tokens come")
        self.system, self.first, self.user, self.reply = system, first, user, reply
        self.past, self.lead, self.opening = past, lead, opening
        self.stops, self.image, self.picture, self.gap = tuple(stops), image, picture, gap

    def pieces(self, turns: Sequence[Turn], pictures: int) -> list[Piece]:
        """See `Prompt`. The turns must alternate, the user begins."""
        for index, turn in enumerate(turns):
            if turn.role != ("user", "assistant")[index % 2]:
                raise ValueError(f"turn {index + 1} is the {turn.role}'s; user and assistant must alternate")
            if turn.role == "assistant" and not turn.text and index + 1 < len(turns):
                raise ValueError(f"turn {index + 1} is an empty reply; only the last one may be, to be generated")

        texts = place([turn.text for turn in turns[::2]], pictures, self.image, self.gap)
        replies = [turn.text for turn in turns[1::2]]
        pieces, shown = [], 0
        for index, text in enumerate(texts):
            words, tags = text, ""
            if pictures:
                count = text.count(TAG)
                numbered = [self.picture.format(number=shown + n) for n in range(1, count + 1)]
                shown += count
                words, tags = text.replace(TAG, "").strip(), self.gap.join(numbered)
                # One after the other: what replaces the first tag holds a tag itself.
                parts = text.split(TAG)
                text = "".join(part + tag for part, tag in zip(parts, [*numbered, ""], strict=True))
            form = self.user if index else self.first
            pieces += split(form.format(system=self.system, text=text, words=words, pictures=tags), pictures)
            pieces += self._reply(replies, index, last=index + 1 == len(texts))
        return pieces

    def _reply(self, replies: Sequence[str], number: int, last: bool) -> list[Piece]:
        text = replies[number] if number < len(replies) else ""
        if not last:
            return [Piece((self.past or self.reply).format(text=text), target=self.past is None)] if text else []
        before = [Piece(self.lead)] if self.lead else []
        if text:
            return [*before, Piece(self.opening + self.reply.format(text=text), target=True)]
        return [*before, *([Piece(self.opening)] if self.opening else [])]
