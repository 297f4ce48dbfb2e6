"""Prompts given by format strings: Vicuna, LLaVA's captions, Llama-2, ChatML, MiniGPT-4, GLM, CogVLM, ..."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from string import Formatter
from typing import Any

from mmrnn.prompts.boxes import Codec
from mmrnn.prompts.image_position import ImagePosition, place_images
from mmrnn.prompts.spans import split_at_tags
from mmrnn.prompts.system_turn import split_system
from mmrnn.types import TAG, ChecksKnobs, Prompt, Span, Turn

FIELDS = {
    "first": {"system", "text", "words", "images"},
    "user": {"system", "text", "words", "images"},
    "reply": {"text"},
    "past_reply": {"text"},
    "image_template": {"number"},
}
"""Fields that each format string may hold."""


class Template(Prompt, ChecksKnobs):
    """Alternating turns of user and assistant, each written by a format string.

    The defaults are LLaVA-1.5's `v1` (arXiv 2310.03744). A BOS is not written here: the tokenizer adds it.

    Args:
        system: system message, the field `{system}`.
        first: the user's first turn, up to the reply; may hold `{system}`, and `{text}` or its two halves `{images}`
            (the tags of the turn) and `{words}` (the text without them).
        user: the user's later turns, with the same fields.
        reply: the supervised text of a reply; may hold `{text}`.
        past_reply: a reply that other turns follow, not supervised; None: as `reply`, and supervised.
        reply_prefix: text before the last reply, not supervised.
        reply_opening: beginning of a supervised reply; given in generation.
        stops: strings that end a reply.
        image_position: position of the images of a turn, see `place_images`.
        image_template: text of one image; holds `<image>` once, and may hold `{number}`, which counts images from 1.
        image_separator: text between the images, and between them and the words.
        strip_around_images: remove the white space on both sides of every image, that of the format included.
        asking: format of a dialogue whose last reply is to be generated, where a design asks in another text than it
            was trained with; None: this format. Its `stops` are not used.
        boxes: form in which the design writes boxes; None: it writes none.

    Raises:
        ValueError: a format string has an unknown field, or more than its name in a field, or `image_template` has no
            tag.
    """

    def __init__(
        self,
        *,
        system: str = "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        first: str = "{system} USER: {text} ASSISTANT:",
        user: str = "USER: {text} ASSISTANT:",
        reply: str = " {text}</s>",
        past_reply: str | None = None,
        reply_prefix: str = "",
        reply_opening: str = "",
        stops: tuple[str, ...] = ("</s>",),
        image_position: ImagePosition = "first",
        image_template: str = TAG,
        image_separator: str = "\n",
        strip_around_images: bool = False,
        asking: Prompt | None = None,
        boxes: Codec | None = None,
    ) -> None:
        templates = dict(zip(FIELDS, (first, user, reply, past_reply, image_template), strict=True))
        for name, fault in self.knob_faults(templates):
            raise ValueError(f"{name} {fault}")
        self.system, self.first, self.user, self.reply = system, first, user, reply
        self.past_reply, self.reply_prefix, self.reply_opening = past_reply, reply_prefix, reply_opening
        self.image_position, self.image_template, self.image_separator = image_position, image_template, image_separator
        self.strip_around_images, self.asking = strip_around_images, asking
        self.stops, self.boxes = tuple(stops), boxes

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the name and the fault of format strings. See `ChecksKnobs`."""
        for name in FIELDS:
            if fault := _format_fault(name, knobs[name] or ""):
                yield name, f"({knobs[name]!r}) {fault}"
        if knobs["image_template"].count(TAG) != 1:
            yield "image_template", f"({knobs['image_template']!r}) must hold {TAG} once, for the visual tokens"

    def spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """Format turns; the user begins, and the roles alternate. See `Prompt.spans`.

        A first turn of the system replaces the system message; without a field for it, it stands before the words of
        the first turn.

        Raises:
            ValueError: tags and images do not agree, roles do not alternate, or a reply before the last is empty.
        """
        if self.asking is not None and _asks(turns):
            return self.asking.spans(turns, images)
        return self._write(turns, images)

    def appended_spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """Format turns with `sandwich` as questions that came one after the other. See `Prompt.appended_spans`."""
        if self.asking is not None and _asks(turns):
            return self.asking.appended_spans(turns, images)
        return self._write(turns, images, appended=True)

    def _write(self, turns: Sequence[Turn], images: int, appended: bool = False) -> list[Span]:
        system, turns = split_system(turns)
        _check_roles(turns)
        questions = [turn.text for turn in turns[::2]]
        texts = place_images(questions, images, self.image_position, self.image_separator, appended=appended)
        replies = [turn.text for turn in turns[1::2]]
        spans, count = [], 0
        for index, text in enumerate(texts):
            words, tags = text, ""
            if images:
                first, count = count + 1, count + text.count(TAG)
                numbered = [self.image_template.format(number=number) for number in range(first, count + 1)]
                words, tags = text.replace(TAG, "").strip(), self.image_separator.join(numbered)
                # Not by str.replace: what replaces the first tag holds a tag itself.
                parts = text.split(TAG)
                text = "".join(part + tag for part, tag in zip(parts, [*numbered, ""], strict=True))
            template = self.user if index else self.first
            if system is not None and not index and _holds_words_alone(template):
                template = f"{{system}}\n{template}"
            message = self.system if system is None else system
            spans += split_at_tags(template.format(system=message, text=text, words=words, images=tags), images)
            reply = replies[index] if index < len(replies) else ""
            spans += self._last_reply(reply) if index + 1 == len(texts) else self._past_reply(reply)
        return _strip_around_images(spans) if self.strip_around_images else spans

    def _past_reply(self, text: str) -> list[Span]:
        if not text:
            return []
        if self.past_reply is None:
            return [Span(self.reply_opening + self.reply.format(text=text), target=True)]
        return [Span(self.past_reply.format(text=text))]

    def _last_reply(self, text: str) -> list[Span]:
        prefix = [Span(self.reply_prefix)] if self.reply_prefix else []
        if text:
            return [*prefix, Span(self.reply_opening + self.reply.format(text=text), target=True)]
        return [*prefix, *([Span(self.reply_opening)] if self.reply_opening else [])]


def _asks(turns: Sequence[Turn]) -> bool:
    """True where the last reply of a dialogue is to be generated."""
    return turns[-1].role != "assistant" or not turns[-1].text


def _format_fault(name: str, template: str) -> str | None:
    """Return the fault of a format string one of whose fields is no known name alone.

    A width (`{text:>9}`) could ask for any amount of memory, an attribute or index for any object behind the value.
    """
    try:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        return f"is no format string: {error}; write a brace as {{{{ or }}}}"
    for _, field, width, conversion in fields:
        if field not in FIELDS[name] or width or conversion:
            written = field + (f"!{conversion}" if conversion else "") + (f":{width}" if width else "")
            known = ", ".join(f"{{{known}}}" for known in sorted(FIELDS[name]))
            return f"holds {{{written}}}; it may hold {known}, as they stand here"
    return None


def _strip_around_images(spans: Sequence[Span]) -> list[Span]:
    found = []
    for index, span in enumerate(spans):
        text = span.text
        if index and spans[index - 1].image:
            text = text.lstrip()
        if index + 1 < len(spans) and spans[index + 1].image:
            text = text.rstrip()
        if span.image or text:
            found.append(replace(span, text=text))
    return found


def _holds_words_alone(template: str) -> bool:
    """True where a format string holds the user's words and no system message."""
    fields = {field for _, field, _, _ in Formatter().parse(template)}
    return "system" not in fields and not fields.isdisjoint({"text", "words"})


def _check_roles(turns: Sequence[Turn]) -> None:
    for index, turn in enumerate(turns):
        if turn.role != ("user", "assistant")[index % 2]:
            raise ValueError(f"turn {index + 1} is the {turn.role}'s; user and assistant must alternate")
        if turn.role == "assistant" and not turn.text and index + 1 < len(turns):
            raise ValueError(f"turn {index + 1} is an empty reply; only the last one may be, to be generated")
