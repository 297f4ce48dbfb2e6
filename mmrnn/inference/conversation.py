"""Conversations with a model: each turn continues the state of those before it."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mmrnn.data.image import ImageLike
from mmrnn.inference.conversation_file import read_conversation, write_conversation
from mmrnn.inference.dialogue import PLACEHOLDER, DialogueRow, Exchange, other_question
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.generate import check_max_new_tokens, decode
from mmrnn.inference.mark import Mark, SeenFrames
from mmrnn.inference.reader import DialogueReader, cut_between_images
from mmrnn.inference.sampler import Sampler
from mmrnn.inference.text_stream import TextStream, common_length
from mmrnn.prompts import StopCriteria
from mmrnn.types import TAG, State, Turn


class Conversation:
    """A dialogue with a model, and the states that it can be continued from.

    The dialogue is always what the prompt writes of the texts. A mark is resumed only where the new row begins with
    the very tokens and images that were read; a reply whose tokens are others than those of its text, or that the
    prompt writes otherwise once a turn follows, is read once more, and nothing before it. Where the model reads a
    prompt as a whole (`DialogueReader.causal`), every turn reads the whole dialogue, as does the first one after the
    weights have changed in place.

    States are never modified, so that conversations of one model share nothing that changes. One conversation is not
    for several threads; `branch` gives each its own.

    Args:
        reader: of the model.
        system: message in place of the prompt's own; None: that of the prompt.
        reread: write the whole dialogue as training does at each turn, where that changes earlier text (`sandwich`
            writes all questions before the image), which is read anew then; False: append turns.
        max_marks: states that are kept for `undo`; what is undone beyond them is read anew. 0: none, and every turn
            reads the whole dialogue.
        seen: frames of a stream that the first question is about; their mark is always kept.

    Raises:
        ValueError: `max_marks` is negative.
    """

    def __init__(
        self,
        reader: DialogueReader,
        *,
        system: str | None = None,
        reread: bool = False,
        max_marks: int = 8,
        seen: SeenFrames | None = None,
    ) -> None:
        if max_marks < 0:
            raise ValueError(f"max_marks ({max_marks}) must not be negative; 0 keeps no state")
        self.seen = seen
        self.reader, self.system, self.reread, self.max_marks = reader, system, reread, max_marks
        self.exchanges: tuple[Exchange, ...] = ()
        self.marks: tuple[Mark, ...] = ()
        self._weights = reader.weights

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Questions and replies."""
        pairs = ((Turn("user", each.question), Turn("assistant", each.reply)) for each in self.exchanges)
        return tuple(turn for pair in pairs for turn in pair)

    @property
    def state(self) -> State | None:
        """State of the newest mark; None: nothing was read, or no state is kept."""
        return self.marks[-1].state if self.marks else None

    def say(
        self,
        question: str,
        *images: ImageLike,
        observations: Mapping[str, tuple[Tensor, ...]] | None = None,
        max_new_tokens: int = 64,
        sampler: Sampler | None = None,
        stop: str | Sequence[str] = (),
    ) -> Generator[str, None, str]:
        """Yield the reply after every token, each time all of it so far, and add it to the dialogue at its end.

        A reply that is not taken to its end, or that is empty, leaves the conversation as it was. Each text is the
        beginning of the next one, as of `Assistant.stream`.

        Args:
            question: without an image tag, it comes after the images.
            images: files, bytes of files, open images, arrays; a video where the question has the tag `<video>`.
            observations: inputs of other modalities, as of `Assistant.ask`.
            max_new_tokens: of the reply; 0: it is empty.
            sampler: choice of the next token; None: the most likely one.
            stop: strings that end the reply, beside those of the prompt.

        Raises:
            ImageError: an image cannot be opened.
            ValueError: tags and images or observations differ in number, the model has no such modality, the prompt
                has no further turn, or the conversation has continued since `say` was called.
        """
        check_max_new_tokens(max_new_tokens)
        exchange = self.reader.exchange(self.reader.question(question, images, observations))
        if self.reader.weights is not self._weights:  # states of other weights
            self.marks, self._weights = (), self.reader.weights
        asked = (*self.exchanges, exchange if self.seen is None else self._about_frames(exchange))
        row = self._row(asked)
        criteria = self.reader.stop_criteria(stop)
        return self._reply(self.exchanges, asked, row, criteria, {"max_new_tokens": max_new_tokens, "sampler": sampler})

    def ask(self, question: str, *images: ImageLike, **options) -> str:
        """Return the reply that `say` adds to the dialogue; the arguments are the same."""
        return whole_reply(self.say(question, *images, **options))

    def undo(self, exchanges: int = 1) -> None:
        """Take back the last exchanges; the state is the one from before them.

        Raises:
            ValueError: there are not as many, or a conversation that was loaded would lose the frames it is about.
        """
        if not 0 <= exchanges <= len(self.exchanges):
            raise ValueError(f"the conversation has {len(self.exchanges)} questions, so {exchanges} cannot be undone")
        kept = len(self.exchanges) - exchanges
        if not kept and self.seen is None and any(item.is_stream for each in self.exchanges for item in each.inputs):
            raise ValueError("the first question is about a stream, which the file of the conversation does not hold")
        self.exchanges = self.exchanges[:kept]
        self.marks = tuple(mark for mark in self.marks if mark.exchanges <= kept)

    def branch(self) -> "Conversation":
        """Return a conversation that continues from here on its own; no state is copied."""
        other = type(self)(self.reader, **self._settings, seen=self.seen)
        other.exchanges, other.marks, other._weights = self.exchanges, self.marks, self._weights
        return other

    def save(self, path: str | Path) -> None:
        """Write texts, images as they are encoded, and the newest state to a safetensors file.

        Raises:
            ValueError: the path is a folder, or the texts are too long for the header of the file.
        """
        write_conversation(path, self.reader, self._settings, self.exchanges, self.marks[-1:])

    @classmethod
    def load(cls, reader: DialogueReader, path: str | Path) -> "Conversation":
        """Read a file that `save` wrote; see `Assistant.resume`."""
        settings, exchanges, marks = read_conversation(path, reader)
        loaded = cls(reader, **settings)
        loaded.exchanges, loaded.marks = exchanges, marks
        return loaded

    @property
    def _settings(self) -> dict[str, str | int | None]:
        return {"system": self.system, "reread": self.reread, "max_marks": self.max_marks}

    def _row(self, exchanges: tuple[Exchange, ...]) -> DialogueRow:
        return self.reader.row(exchanges, system=self.system, rewrite=self.reread)

    def _about_frames(self, exchange: Exchange) -> Exchange:
        """Exchange that shows the frames of the stream, if it is the first one."""
        if self.reader.weights is not self.seen.weights:
            raise ValueError("the weights have changed since the frames were read; watch them again")
        if self.exchanges:
            return exchange
        inputs = (self.seen.item, *exchange.inputs)
        return replace(exchange, question=f"{TAG}\n{exchange.question}", inputs=inputs)

    @torch.no_grad()
    def _reply(
        self,
        before: tuple[Exchange, ...],
        asked: tuple[Exchange, ...],
        row: DialogueRow,
        stop: StopCriteria,
        options: dict,
    ) -> Generator[str, None, str]:
        if not options["max_new_tokens"]:
            return ""
        reader = self.reader
        text, ids = TextStream(reader.tokenizer, stop), []
        with eval_mode(reader.model):
            last, state, mark = self._read_prompt(asked, row)
            tokens = decode(reader.model, last, state, finished=stop.finished, **options)
            while True:
                try:
                    ids.append(next(tokens)[0].id)
                except StopIteration as end:
                    state = end.value
                    break
                yield text.push(ids[-1])
        shown = text.text
        if text.finish() != shown:
            yield text.text
        # What was shown stays, even if a tokenizer with byte fallback has taken a character back.
        reply = stop.clean(reader.tokenizer.decode(ids))
        if not reply:
            return ""
        if self.exchanges is not before:
            raise ValueError(
                "the conversation has continued while this reply was read; `branch` makes several replies possible"
            )
        self.exchanges = (*asked[:-1], replace(asked[-1], reply=reply))
        self._keep(mark, DialogueRow(row.ids + ids[:-1], row.spans, row.inputs), state)
        return reply

    def _read_prompt(self, asked: tuple[Exchange, ...], row: DialogueRow) -> tuple[Tensor, State, Mark | None]:
        """Hidden state of the last position of a row (`1 d`), the state after it, and a mark before its reply."""
        start, state = self._resume(asked, row)
        cut = self._shared_length(asked, row)
        mark = None
        if cut > start:
            last, state = self.reader.read(row, start, cut, state)
            mark, start = Mark(len(asked), cut, row.digest(cut), state), cut
        if start < len(row.ids) or not row.ids:
            last, state = self.reader.read(row, start, len(row.ids), state)
        return last, state, mark

    def _resume(self, asked: tuple[Exchange, ...], row: DialogueRow) -> tuple[int, State | None]:
        """Positions of a row that a mark or the cache of the reader spares, and the state behind them."""
        if not self.reader.causal:
            return 0, None
        seen = () if self.seen is None else (self.seen.mark,)
        for mark in (*reversed(self.marks), *seen):
            if mark.begins(row):
                return mark.length, mark.state
        if len(asked) > 1 or not asked[0].inputs:
            return 0, None
        other = replace(asked[0], question=other_question(asked[0].question))
        return self.reader.read_images(row, self._row((other,)))

    def _shared_length(self, asked: tuple[Exchange, ...], row: DialogueRow) -> int:
        """Positions of a row that a row with a reply and a further question begins with, too; 0: no mark is kept."""
        later = self._row_after((*asked[:-1], replace(asked[-1], reply=PLACEHOLDER)))
        return 0 if later is None else cut_between_images(row, common_length(row.ids, later.ids))

    def _keep(self, mark: Mark | None, read: DialogueRow, state: State) -> None:
        """Keep the last mark that a further question can be continued from."""
        later = self._row_after(self.exchanges)
        if later is None:
            return
        after = Mark(len(self.exchanges), len(read.ids), read.digest(len(read.ids)), state)
        found = [each for each in (after, mark) if each is not None and each.begins(later)][:1]
        self.marks = (*self.marks, *found)[-self.max_marks :]

    def _row_after(self, exchanges: tuple[Exchange, ...]) -> DialogueRow | None:
        """Row of a dialogue and a further question; None: no mark is kept, or the prompt has no further turn."""
        if not self.max_marks or not self.reader.causal:
            return None
        try:
            return self._row((*exchanges, Exchange(PLACEHOLDER)))
        except ValueError:  # the prompt has no further turn
            return None


def whole_reply(texts: Generator[str, None, str]) -> str:
    """Return the reply that a stream of texts returns at its end."""
    while True:
        try:
            next(texts)
        except StopIteration as end:
            return end.value
