"""Dialogue of a conversation: exchanges with the inputs that they show, and its token ids."""

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mmrnn.data.collate import IMAGE
from mmrnn.data.image import ImageLike, image_source
from mmrnn.data.video import VIDEO
from mmrnn.data.video_turns import expand_videos, video_inputs
from mmrnn.prompts import insert_modality_slots, tokenize
from mmrnn.types import TAG, ImageSource, ImageSpan, Layout, Prompt, Sample, Tokenizer, Turn

PLACEHOLDER = "\ue000"
"""A private character in place of a text that is not known yet, or whose place in the prompt is looked for."""


@dataclass(frozen=True)
class DialogueInput:
    """An image, or an input of another modality, as it is encoded.

    Attributes:
        modality: that encodes it.
        tensor: pixels, cached features or observations.
        layout: of its visual tokens.
        key: hash of modality and tensor.
    """

    modality: str
    tensor: Tensor
    layout: Layout
    key: str

    @classmethod
    def of(cls, modality: str, tensor: Tensor, layout: Layout) -> "DialogueInput":
        """Return the input with its key."""
        digest = sha256(f"{modality} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return cls(modality, tensor, layout, digest.hexdigest())

    @classmethod
    def of_stream(cls, digest: bytes, layout: Layout) -> "DialogueInput":
        """Return one input in place of all frames of a stream, which were read and not kept.

        Args:
            digest: hash of the frames, the tensor of the input.
            layout: of a frame.
        """
        one = Layout(cross_attention=1) if layout.cross_attention else Layout(prefix=1)
        return cls.of(IMAGE, torch.frombuffer(bytearray(digest), dtype=torch.uint8), one)

    @property
    def is_stream(self) -> bool:
        """True for the input that stands for the frames of a stream."""
        return self.tensor.dtype == torch.uint8


@dataclass(frozen=True)
class Exchange:
    """A question of the user and its reply.

    Attributes:
        question: with a tag for each input.
        inputs: that the question shows, in the order of its tags.
        reply: empty: to be generated.
    """

    question: str
    inputs: tuple[DialogueInput, ...] = ()
    reply: str = ""


class DialogueRow(NamedTuple):
    """Token ids of a dialogue, and its inputs with their places in them."""

    ids: list[int]
    spans: list[ImageSpan]
    inputs: list[DialogueInput]

    def digest(self, stop: int) -> str:
        """Return a hash of the first `stop` positions and of the inputs in them."""
        [found] = self.digests([stop])
        return found

    def digests(self, stops: Iterable[int]) -> Iterator[str]:
        """Yield the `digest` of each stop; stops ascend, and every position is hashed once."""
        ids, start, digest = array("q", self.ids), 0, sha256()
        for stop in stops:
            digest.update(ids[start:stop].tobytes())
            start, whole = stop, digest.copy()
            for span, item in zip(self.spans, self.inputs, strict=True):
                if span.start < stop:
                    whole.update(f"{span.start} {item.key} ".encode())
            yield whole.hexdigest()


def dialogue_row(
    exchanges: Sequence[Exchange], tokenizer: Tokenizer, prompt: Prompt, *, system: str | None = None, rewrite: bool
) -> DialogueRow:
    """Return the row of a dialogue as a prompt writes it.

    Args:
        exchanges: all but the last with a reply.
        system: message in place of the prompt's own; None: that of the prompt.
        rewrite: write all turns as a dialogue of training, in which an earlier turn may hold words of a later one;
            False: as turns that were appended.

    Raises:
        ValueError: the prompt cannot format these turns, or leaves an input of a later turn out.
    """
    turns = [] if system is None else [Turn("system", system)]
    for exchange in exchanges:
        turns += [Turn("user", exchange.question), Turn("assistant", exchange.reply)]
    inputs = [item for exchange in exchanges for item in exchange.inputs]
    images = sum(item.modality == IMAGE for item in inputs)
    spans = (prompt.spans if rewrite else prompt.appended_spans)(turns, images)
    spans = insert_modality_slots(spans, sorted({item.modality for item in inputs} - {IMAGE}))
    places = [span.modality or IMAGE for span in spans if span.image]
    if places != [item.modality for item in inputs]:
        raise ValueError(
            f"{type(prompt).__name__} writes {len(places)} of the {len(inputs)} images and other inputs of the "
            "dialogue; show all of them with the first question"
        )
    row = tokenize(spans, tokenizer, [item.layout for item in inputs], modality=IMAGE)
    return DialogueRow(row.ids, row.image_spans, inputs)


def question_sample(
    question: str,
    images: Sequence[ImageLike],
    observations: Mapping[str, tuple[Tensor, ...]] | None = None,
    *,
    temporal_patch: int = 1,
) -> Sample:
    """Return a question with its images as a sample to be answered.

    Args:
        question: without an image tag, it comes after all images.
        images: one for each tag `<image>`, and a video for each `<video>`, in their order.
        observations: by modality.
        temporal_patch: frames of a video that the encoder reads as one input (`ImageSpec.temporal_patch`).

    Raises:
        ImageError: a video cannot be read.
        ValueError: tags and images differ in number, or a video is given otherwise than by its path.
    """
    counts = {tag: question.count(tag) for tag in (TAG, VIDEO)}
    if sum(counts.values()) not in (0, len(images)):
        tags = " and ".join(f"{count} {tag}" for tag, count in counts.items() if count)
        raise ValueError(f"the question has {tags} for {len(images)} images; each tag needs one image")
    if not any(counts.values()):
        question = "\n".join([*[TAG] * len(images), question])
    turns = (Turn("user", question), Turn("assistant", ""))
    if not counts[VIDEO]:
        sources: tuple[ImageSource, ...] = tuple(map(image_source, images))
    else:
        turns, sources = _expand(turns, images, temporal_patch)
    return Sample(turns, sources, observations=observations or {})


def _expand(
    turns: tuple[Turn, ...], images: Sequence[ImageLike], temporal_patch: int
) -> tuple[tuple[Turn, ...], tuple[ImageSource, ...]]:
    """Turns and images with every video replaced by its frames."""
    tags = turns[0].text.replace(TAG, f"\0{TAG}\0").replace(VIDEO, f"\0{VIDEO}\0").split("\0")
    found: dict[str, list] = {TAG: [], VIDEO: []}
    for tag, image in zip((tag for tag in tags if tag in found), images, strict=True):
        if tag == TAG:
            found[tag].append(image_source(image))
        elif isinstance(image, str | Path):
            found[tag].append(video_inputs(image, temporal_patch=temporal_patch))
        else:
            raise ValueError(f"the question has the tag {VIDEO}; give the path of a video (got {type(image).__name__})")
    return expand_videos(turns, found[TAG], found[VIDEO])


def other_question(question: str) -> str:
    """Return a question that shows the same inputs and has other words behind them."""
    shown = re.match(r".*<\w+>", question, re.DOTALL)
    return (shown[0] if shown else "") + PLACEHOLDER


def without_reply(sample: Sample) -> Sample:
    """Return a sample with an empty last reply.

    Raises:
        ValueError: it ends with no question of the user.
    """
    turns = sample.turns[:-1] if sample.turns and sample.turns[-1].role == "assistant" else sample.turns
    if not turns or turns[-1].role != "user":
        which = f"sample {sample.id}" if sample.id else "a sample"
        raise ValueError(f"{which} ends with no question of the user, so there is nothing to answer")
    return replace(sample, turns=(*turns, Turn("assistant", "")))
