"""Prompts that are a matter of data: Vicuna, LLaVA's plain captions, Llama-2, ChatML, MiniGPT-4."""

from collections.abc import Sequence
from string import Formatter

from mmrnn.data.sample import TAG, Turn
from mmrnn.prompts.dialogue import split
from mmrnn.prompts.piece import Piece
from mmrnn.prompts.place import Place, place


class Template:
    """User and assistant take turns, each turn written by a form. The defaults are LLaVA-1.5's `v1` (arXiv 2310.03744).

    The forms `first` and `user` say how the user's turn is written up to where the reply begins; they may hold
    `{text}`, `{system}` and `{pictures}` (the tags of the turn alone, for captions that no words introduce). The form
    `reply` says what is learnt, with `{text}`. A BOS is not written here: the tokenizer has it.
    """

    def __init__(
        self,
        *,
        system: str = "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        first: str = "{system} USER: {text} ASSISTANT:",
        user: str = "USER: {text} ASSISTANT:",
        reply: str = " {text}</s>",
        stops: tuple[str, ...] = ("</s>",),
        image: Place = "first",
        picture: str = TAG,
        gap: str = "\n",
    ) -> None:
        for name, form, known in (
            ("first", first, {"system", "text", "pictures"}),
            ("user", user, {"system", "text", "pictures"}),
            ("reply", reply, {"text"}),
        ):
            if unknown := {field for _, field, _, _ in Formatter().parse(form) if field is not None} - known:
                raise ValueError(f"{name} ({form!r}) holds {{{unknown.pop()}}}; it may hold {sorted(known)}")
        if picture.count(TAG) != 1:
            raise ValueError(f"picture ({picture!r}) must hold {TAG} once, where the visual tokens come")
        self.system, self.first, self.user, self.reply = system, first, user, reply
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
        pieces = []
        for index, text in enumerate(texts):
            form = self.user if index else self.first
            if pictures:
                text = text.replace(TAG, self.picture)
            tags = self.gap.join([self.picture] * text.count(TAG)) if pictures else ""
            pieces += split(form.format(system=self.system, text=text, pictures=tags), pictures)
            if index < len(replies) and replies[index]:
                pieces.append(Piece(self.reply.format(text=replies[index]), target=True))
        return pieces
