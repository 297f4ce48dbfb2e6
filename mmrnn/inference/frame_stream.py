"""Streams of frames: a video is read frame by frame into one state, and questions are answered on branches of it."""

import json
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch

from mmrnn.data.collate import IMAGE
from mmrnn.data.image import ImageLike
from mmrnn.inference.conversation import Conversation, whole_reply
from mmrnn.inference.dialogue import PLACEHOLDER, DialogueInput, DialogueRow, Exchange, question_sample
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.fingerprint import state_facts
from mmrnn.inference.mark import Mark, SeenFrames
from mmrnn.inference.reader import DialogueReader
from mmrnn.io.atomic import replace_file
from mmrnn.prompts import tokenize
from mmrnn.types import TAG, Span, State, Turn


class FrameStream:
    """A video that is read frame by frame, and the state behind its last frame.

    The frames are the images of a first question that is not known yet, in the form of a video in a question: a reply
    equals that to one reading of the prompt with all frames. Neither frames nor their visual tokens are kept: a linear
    RNN needs the memory of one state however long the video is, and a transformer that of its cache, which grows.

    Iterating reads the frames that were given, and yields the number of frames so far. One stream is not for several
    threads; a chat about it may be.

    Args:
        reader: of the model.
        frames: images in their order; none is read before the stream is iterated.
        system: message in place of the prompt's own; None: that of the prompt.

    Attributes:
        frames: number of frames read.
        positions: number of positions read.
        state: after the last frame; None: no frame was read.

    Raises:
        ValueError: frames cannot be read before the question, because the model reads a prompt as a whole or the prompt
            writes the question first.
    """

    def __init__(self, reader: DialogueReader, frames: Iterable[ImageLike] = (), *, system: str | None = None) -> None:
        if isinstance(frames, str | bytes) or not isinstance(frames, Iterable):
            raise ValueError(f"frames ({frames!r:.60}) must be several images; `mmrnn.data.video_frames` reads a video")
        self.reader, self.system = reader, system
        self.frames = self.positions = 0
        self.state: State | None = None
        self._given, self._digest, self._weights = iter(frames), b"", reader.weights
        self._between: list[Span] | None = None
        self._check_prompt()
        first, second, third = (self._piece(number) for number in (1, 2, 3))
        self._prompt = sha256(json.dumps([[span.text for span in each] for each in (first, second, third)]).encode())
        if second == third:  # the prompt does not number its images
            self._between = second

    def __iter__(self) -> Iterator[int]:
        for frame in self._given:
            self.read(frame)
            yield self.frames

    @torch.no_grad()
    def read(self, *frames: ImageLike) -> None:
        """Read the next frames, several in one pass.

        Raises:
            ImageError: a frame cannot be opened; none of them is read.
            ValueError: the weights have changed since the first frame.
        """
        if not frames:
            return
        reader, digest = self.reader, self._digest
        items = [reader.exchange(question_sample(TAG, [frame])).inputs[0] for frame in frames]
        if self._weights is not reader.weights:
            if self.frames:
                raise ValueError("the weights have changed since the first frame was read; watch the frames again")
            self._weights = reader.weights
        pieces = [span for number, _ in enumerate(frames, self.frames + 1) for span in self._piece(number)]
        row = tokenize(pieces, reader.tokenizer, [item.layout for item in items])
        begun = len(reader.tokenizer.starts) if self.frames else 0
        spans = [replace(span, start=span.start - begun) for span in row.image_spans]
        ids = row.ids[begun:]
        with eval_mode(reader.model):
            _, self.state = reader.read(DialogueRow(ids, spans, items), 0, len(ids), self.state, keep=False)
        for item in items:
            digest = sha256(digest + item.key.encode()).digest()
        self.frames, self.positions = self.frames + len(frames), self.positions + len(ids)
        self._digest = digest

    def chat(self, *, max_marks: int = 8) -> Conversation:
        """Return a conversation about the frames so far, whose first question shows them; the stream can go on.

        Args:
            max_marks: as of `Conversation`; the state behind the frames is kept beside them.

        Raises:
            ValueError: no frame has been read.
        """
        if self.state is None:
            raise ValueError("no frame has been read; `read` the first one, or iterate over the stream")
        image = self.reader.model.modalities[IMAGE]
        item = DialogueInput.of_stream(self._digest, image.layout(*image.image.size))
        row = self.reader.row((Exchange(f"{TAG}\n{PLACEHOLDER}", (item,)),), system=self.system)
        length = self.reader.behind(row.spans[0])
        seen = SeenFrames(item, Mark(0, length, row.digest(length), self.state), self._weights)
        return Conversation(self.reader, system=self.system, max_marks=max_marks, seen=seen)

    def say(self, question: str, **options) -> Generator[str, None, str]:
        """Yield the reply to a question about the frames so far, as it grows; the stream is left as it is.

        Args:
            question: about all frames.
            options: as of `Conversation.say`.

        Raises:
            ValueError: as of `chat` and `Conversation.say`.
        """
        return self.chat(max_marks=0).say(question, **options)

    def ask(self, question: str, **options) -> str:
        """Return the reply that `say` yields at last."""
        return whole_reply(self.say(question, **options))

    def save(self, path: str | Path) -> None:
        """Write the state, and what further frames and questions need, to a safetensors file.

        Raises:
            ValueError: no frame has been read, or the path is a folder.
        """
        if self.state is None:
            raise ValueError("no frame has been read, so there is no state to be saved")
        if Path(path).is_dir():
            raise ValueError(f"{path} is a folder; name a file in it")
        facts = {**self._facts, "stream": json.dumps([self.frames, self.positions, self._digest.hex()])}
        replace_file(Path(path), lambda temporary: self.state.save(temporary, facts))

    def resume(self, path: str | Path) -> None:
        """Continue from a file that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, holds no stream, or was made with another backbone, weights, tokenizer,
                scan, prompt or system message.
        """
        found = State.load_file(path, str(self.reader.device), self._facts)
        match = re.fullmatch(r'\[(\d{1,15}), (\d{1,15}), "([0-9a-f]{64})"\]', found.facts.get("stream", ""))
        if match is None or found.state.rows != 1:
            raise ValueError(f"{path} holds a state, but not that of a stream")
        found.state.check(self.reader.model.state_origin, self.reader.model.backbone.state(0))
        self.state, self.frames, self.positions = found.state, int(match[1]), int(match[2])
        self._digest, self._weights = bytes.fromhex(match[3]), self.reader.weights

    @property
    def _facts(self) -> dict[str, str]:
        facts = state_facts(self.reader.model, self.reader.tokenizer)
        return {**facts, "prompt": self._prompt.hexdigest()[:16]}

    def _spans(self, frames: int, question: str) -> list[Span]:
        """Spans of a question about some frames that is to be answered."""
        turns = [] if self.system is None else [Turn("system", self.system)]
        turns += [Turn("user", f"{TAG * frames}\n{question}"), Turn("assistant", "")]
        return self.reader.prompt.appended_spans(turns, frames)

    def _piece(self, number: int) -> list[Span]:
        """Spans from the frame before a frame, counted from 1, to the frame itself."""
        if number > 1 and self._between is not None:
            return self._between
        spans = self._spans(number, PLACEHOLDER)
        start, stop = ([0, *_ends(spans)][index] for index in (number - 1, number))
        return spans[start:stop]

    def _check_prompt(self) -> None:
        """Check that what is read up to a frame depends neither on the question nor on later frames."""
        model, name = self.reader.model, type(self.reader.prompt).__name__
        if not self.reader.causal:
            raise ValueError(
                "this model reads a prompt as a whole (by an encoder, or with a mask that is not causal), so that no "
                "frame can be read before the question; ask about all frames at once"
            )
        one, other, two = self._spans(1, "a"), self._spans(1, "b"), self._spans(2, "a")
        ends = _ends(two)
        if len(ends) != 2:
            raise ValueError(f"{name} shows {len(ends)} of 2 images; take a prompt for several images")
        begun = one[: ends[0]]
        if not begun[-1].image or begun != other[: ends[0]] or begun != two[: ends[0]]:
            raise ValueError(
                f"{name} writes the question before the images, so that no frame can be read before it; take a prompt "
                "that writes the images first, such as prompt=first"
            )
        if not one[ends[0] :] or one[ends[0] :] != two[ends[1] :]:
            raise ValueError(f"{name} writes no question behind the images; take a prompt for questions")
        between = any(span.text for span in two[ends[0] : ends[1]])
        if model.hook is not None and model.hook.looks_ahead and not between:
            raise ValueError(
                f"{type(model.hook).__name__} reads the type of the token behind each image, and {name} writes images "
                "without text between them; take another prompt or hook"
            )


def _ends(spans: Sequence[Span]) -> list[int]:
    """Number of spans up to each image."""
    return [index for index, span in enumerate(spans, 1) if span.image]
