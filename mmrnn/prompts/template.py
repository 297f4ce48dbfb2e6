"""Prompts that are a matter of data: Vicuna, LLaVA's plain captions, Llama-2, ChatML, MiniGPT-4, GLM, CogVLM, ..."""

from collections.abc import Sequence
from string import Formatter

from mmrnn.prompts.image_position import Place, place_images
from mmrnn.prompts.rwkv_chat import split
from mmrnn.prompts.spans import Span
from mmrnn.types import Prompt
from mmrnn.types.sample import TAG, Turn


class Template(Prompt):
    """User and assistant take turns, each turn written by a form. The defaults are LLaVA-1.5's `v1` (arXiv 2310.03744).

    The forms `first` and `user` say how the user's turn is written up to where the reply begins; they may hold
    `{system}`, and `{text}` or its two halves `{images}` (the tags of the turn) and `{words}` (without them). The
    form `reply` says what is learnt, with `{text}`. A BOS is not written here: the tokenizer has it.

    Args:
        past: how a reply is written that other turns follow; it is not learnt then. None: as `reply`, and learnt.
        lead: stands before the last reply, not learnt.
        opening: what the last reply opens with: learnt, and given where a reply is to be generated.
        image: where the images of a turn stand.
        image_form: how one is written; may hold `{number}`, which counts them from 1.
        gap: between the images and the words.
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
        image_form: str = TAG,
        gap: str = "\n",
    ) -> None:
        for name, form, known in (
            ("first", first, {"system", "text", "words", "images"}),
            ("user", user, {"system", "text", "words", "images"}),
            ("reply", reply, {"text"}),
            ("past", past or "", {"text"}),
            ("image_form", image_form, {"number"}),
        ):
            if unknown := {field for _, field, _, _ in Formatter().parse(form) if field is not None} - known:
                raise ValueError(f"{name} ({form!r}) holds {{{unknown.pop()}}}; it may hold {sorted(known)}")
        if image_form.count(TAG) != 1:
            raise ValueError(f"image ({image!r}) must hold {TAG} once, where the visual tokens come")
        self.system, self.first, self.user, self.reply = system, first, user, reply
        self.past, self.lead, self.opening = past, lead, opening
        self.stops, self.image, self.image_form, self.gap = tuple(stops), image, image_form, gap

    def spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """See `Prompt`. The turns must alternate, the user begins."""
        for index, turn in enumerate(turns):
            if turn.role != ("user", "assistant")[index % 2]:
                raise ValueError(f"turn {index + 1} is the {turn.role}'s; user and assistant must alternate")
            if turn.role == "assistant" and not turn.text and index + 1 < len(turns):
                raise ValueError(f"turn {index + 1} is an empty reply; only the last one may be, to be generated")

        texts = place_images([turn.text for turn in turns[::2]], images, self.image, self.gap)
        replies = [turn.text for turn in turns[1::2]]
        spans, shown = [], 0
        for index, text in enumerate(texts):
            words, tags = text, ""
            if images:
                count = text.count(TAG)
                numbered = [self.image_form.format(number=shown + n) for n in range(1, count + 1)]
                shown += count
                words, tags = text.replace(TAG, "").strip(), self.gap.join(numbered)
                # One after the other: what replaces the first tag holds a tag itself.
                parts = text.split(TAG)
                text = "".join(part + tag for part, tag in zip(parts, [*numbered, ""], strict=True))
            form = self.user if index else self.first
            spans += split(form.format(system=self.system, text=text, words=words, images=tags), images)
            spans += self._reply(replies, index, last=index + 1 == len(texts))
        return spans

    def _reply(self, replies: Sequence[str], number: int, last: bool) -> list[Span]:
        text = replies[number] if number < len(replies) else ""
        if not last:
            return [Span((self.past or self.reply).format(text=text), target=self.past is None)] if text else []
        before = [Span(self.lead)] if self.lead else []
        if text:
            return [*before, Span(self.opening + self.reply.format(text=text), target=True)]
        return [*before, *([Span(self.opening)] if self.opening else [])]
