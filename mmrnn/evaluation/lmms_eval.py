"""Model of lmms-eval: `python -m lmms_eval eval --model mmrnn --model_args pretrained=RUN --tasks ...`.

lmms-eval finds `manifest` by the entry point `lmms_eval.models`. It asks the chat class, and with `--force_simple` the
simple one: tasks that rank candidates (`output_type: multiple_choice`) need that.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from lmms_eval.protocol import ChatMessages
from PIL import Image
from tqdm import tqdm

from mmrnn.data.image import image_source
from mmrnn.data.video import DEFAULT_FRAMES, frames
from mmrnn.evaluation.harness import Generation, batches, load_assistant, seeds, to_batch_size
from mmrnn.types import ImageSource, Sample, Turn
from mmrnn.types.sample import TAG

MAX_NEW_TOKENS = 1024
"""Of a task that sets none, as for LLaVA's own model there."""

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tiff", ".webp"}
SOUNDS = {".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus"}
"""Suffixes by which lmms-eval tells images and sounds from videos."""

Part = str | tuple[ImageSource, ...]
"""Part of a turn: a text, or an image or the frames of a video."""


def manifest() -> ModelManifest:
    """Return the names under which lmms-eval finds the two classes."""
    return ModelManifest("mmrnn", f"{__name__}.SimpleModel", f"{__name__}.ChatModel")


class HarnessModel(lmms):
    """A run as model of lmms-eval: what the chat and the simple class share.

    A question is written by the run's own prompt. Sampled replies depend on the harness's seed, and not on the batch.

    Args:
        pretrained: folder of a run, or `owner/name` on the Hugging Face hub.
        batch_size: of questions.
        device: of the model; None: the process's own GPU where there is one (`torchrun` starts several).
        max_batch_size: not used.
        frames: images of a video file.
        likelihood: log-probability of a candidate: per token (LLaVA), or the sum.
        trusted: packages whose classes the run's configuration may name, joined by `+`.

    Attributes:
        settings_index: of a task's `generation_kwargs` among the arguments of a request.

    Raises:
        ValueError: a batch size or likelihood that is none.
    """

    settings_index: int

    def __init__(
        self,
        pretrained: str,
        *,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
        frames: int = DEFAULT_FRAMES,
        likelihood: Literal["mean", "sum"] = "mean",
        trusted: str = "",
    ) -> None:
        super().__init__()
        if likelihood not in ("mean", "sum"):
            raise ValueError(f"likelihood ({likelihood!r}) must be mean or sum")
        self.batch_size, self.frames, self.likelihood = to_batch_size(batch_size), frames, likelihood
        self.assistant = load_assistant(pretrained, device, trusted)
        self.device = next(self.assistant.model.parameters()).device

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Return the replies to questions."""
        settings = [
            Generation.parse(each.args[self.settings_index], max_new_tokens=MAX_NEW_TOKENS) for each in requests
        ]
        lengths = [len(each.args[0]) for each in requests]
        replies, drawn = [""] * len(requests), seeds(len(requests))
        for indices in tqdm(batches(settings, lengths, self.batch_size), desc="batches", disable=self.rank != 0):
            given = settings[indices[0]]
            texts = self.assistant.answer(
                [self.to_sample(requests[index].args) for index in indices],
                max_new_tokens=given.max_new_tokens,
                stop=given.until,
                sampler=given.samplers([drawn[index] for index in indices]),
            )
            for index, text in zip(indices, texts, strict=True):
                replies[index] = text
        return replies

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Return the loss of candidate replies, and whether greedy decoding gives them.

        lmms-eval takes the candidate with the *smallest* value, as LLaVA's own model answers with its loss, though its
        base class asks for log-probabilities. The pair is wrapped, because the evaluator turns a bare one into a text.
        The white space around a candidate is that of the run's prompt.
        """
        found: list[GenerationResult] = []
        for _, group in groupby(tqdm(requests, desc="candidates", disable=self.rank != 0), key=_question):
            asked = [each.args for each in group]
            candidates = [self.to_candidate(args) for args in asked]
            for score in self.assistant.score(self.to_sample(asked[0]), candidates, batch_size=self.batch_size):
                log_prob = score.mean() if self.likelihood == "mean" else score.sum()
                found.append(GenerationResult((-log_prob, score.is_greedy())))
        return found

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refuse a task of several rounds, such as `mmsearch_end2end`.

        lmms-eval does not define what such a round reads: a task writes each of its questions from the replies so far,
        and models there ask it either by itself or behind the earlier rounds. Their numbers cannot stand side by side.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"the task {requests[0].task_name} asks in several rounds, which mmrnn does not: leave it out")

    def document(self, args: tuple) -> Any:
        """Return the record that a request is about."""
        *_, doc_id, task, split = args
        return self.task_dict[task][split][doc_id]

    @abstractmethod
    def to_sample(self, args: tuple) -> Sample:
        """Return the question of a request.

        Raises:
            ValueError: it has a sound, or an image of an unknown kind.
        """

    def to_candidate(self, args: tuple) -> str:
        """Return the reply that a request asks the likelihood of."""
        target = args[1](self.document(args)) if callable(args[1]) else args[1]
        return str(target).strip()

    def media(self, given: Any, kind: str = "") -> tuple[ImageSource, ...]:
        """Return an image, or the frames of a video.

        Args:
            given: an open image, an array, a path, or a list of the frames.
            kind: `image`, `video` or `audio`; "": inferred from the suffix.

        Raises:
            ValueError: it is a sound, or of an unknown kind.
        """
        if isinstance(given, Image.Image | bytes) or (isinstance(given, np.ndarray) and given.ndim < 4):
            return (image_source(given),)
        if isinstance(given, list | tuple | np.ndarray):
            return tuple(image for frame in given for image in self.media(frame, "image"))
        if isinstance(given, str | Path) and kind != "audio":
            suffix = Path(given).suffix.lower()
            if kind == "image" or (not kind and suffix in IMAGES):
                return (image_source(given),)
            if kind == "video" or suffix not in SOUNDS:
                return frames(given, self.frames)
        raise ValueError(f"mmrnn takes images, frames and paths of videos, not {kind or 'this'}: {str(given)[:200]}")


class ChatModel(HarnessModel):
    """Chat class: images stand where the task's messages have them."""

    is_simple = False
    settings_index = 2

    def to_sample(self, args: tuple) -> Sample:
        """Return the question of a request; few-shot examples are earlier turns."""
        messages = ChatMessages(messages=args[1](self.document(args))).messages
        turns, images = [], []
        for message in messages:
            parts = [each.text if each.type == "text" else self.media(each.url, each.type) for each in message.content]
            text, shown = write(parts)
            turns.append(Turn(message.role, text))
            images += shown
        return Sample((*turns, Turn("assistant", "")), tuple(images))


class SimpleModel(HarnessModel):
    """Simple class: images stand before the text, or where it has `<image>`; the only one that ranks candidates."""

    is_simple = True
    settings_index = 1

    def to_sample(self, args: tuple) -> Sample:
        """Return the question of a request."""
        text, _, to_visual, *_ = args
        images = to_visual(self.document(args)) if to_visual is not None else None
        text, shown = write([*(self.media(image) for image in images or () if image is not None), text])
        return Sample((Turn("user", text), Turn("assistant", "")), shown)


def write(parts: Sequence[Part]) -> tuple[str, tuple[ImageSource, ...]]:
    """Return the text of a turn with a tag for each image, and the images.

    Where the words themselves have tags, these are the places of the images.
    """
    images = tuple(image for part in parts if not isinstance(part, str) for image in part)
    words = "".join(part for part in parts if isinstance(part, str))
    return (words if TAG in words else "".join(_tagged(parts))), images


def _tagged(parts: Sequence[Part]) -> Iterator[str]:
    """Yield the parts as text; the images at the beginning stand in a line of their own."""
    leading = True
    for part in parts:
        if isinstance(part, str):
            yield f"\n{part}" if leading and part is not parts[0] else part
            leading = False
        else:
            yield TAG * len(part)


def _question(request: Instance) -> tuple:
    """Arguments that the candidates of one question share."""
    if len(request.args) < 6:
        raise ValueError(
            "acc_mutual_info asks for candidates without a question, which mmrnn does not score; leave it out"
        )
    context, _, _, *where = request.args
    return context, *where
