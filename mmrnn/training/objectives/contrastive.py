"""Contrast of images and texts by the hidden states of the language model (VisualRWKV v7.01 with alignment)."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmrnn.model.vlm import VLM
from mmrnn.training.distributed.gather_rows import gather_rows, processes
from mmrnn.types import IGNORE, Batch, Embedder, Objective, Output, PositiveFloat, Sequence


class Pair(NamedTuple):
    """Places of an image and of the text that belongs to it.

    Attributes:
        row: of the batch.
        image: position whose hidden state stands for the image.
        start: first position of the text.
        stop: position after it; the hidden state before it stands for the text.
    """

    row: int
    image: int
    start: int
    stop: int


class Contrastive(Objective, Embedder):
    """Symmetric InfoNCE (arXiv 1807.03748) between the first image of each sample and its last reply.

    Both are hidden states behind the last norm, scaled to unit length, so that nothing is added to the model, and every
    design whose language model is causal can be trained with it. The image is the state at its last visual token, or at
    the mark behind it; the text is the state at the end of the reply. Samples without an image or a reply are left out.
    Negatives come from all processes of a distributed run, and get gradients there.

    A position before the image changes its state: with `image_position` first, an image has one vector whatever is
    asked.

    Args:
        temperature: of the softmax over cosines.
        marks: a mark follows every image (`prompt.image_mark`).
        text: `alone` reads each reply once more in a row of its own, as a search does, so that it cannot have seen its
            image; `in_row` takes its state from the row, behind the image (VisualRWKV).
    """

    has_heads = False
    reads_replies = True

    def __init__(
        self,
        *,
        temperature: PositiveFloat = 0.07,
        marks: bool = False,
        text: Literal["alone", "in_row"] = "alone",
    ) -> None:
        self.temperature, self.marks, self.text = temperature, marks, text

    def num_units(self, batch: Batch) -> int:
        """Number of pairs of an image and a text."""
        return len(self.find_pairs(batch.sequence))

    def embedder(self) -> Embedder:
        """Itself."""
        return self

    def __call__(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """The loss of a batch; 0 where no process has a pair.

        Raises:
            ValueError: the language model is not causal.
        """
        images, texts = self.features(model, output)
        every_image, first = gather_rows(F.normalize(images, dim=-1))
        every_text, _ = gather_rows(F.normalize(texts, dim=-1))
        own = slice(first, first + len(images))
        goal = torch.arange(first, own.stop, device=images.device)
        pairs = (every_text[own] @ every_image.T, every_image[own] @ every_text.T)
        losses = [F.cross_entropy(cosines / self.temperature, goal, reduction="sum") for cosines in pairs]
        return sum(losses) / (2 * max(len(images), 1))

    def features(self, model: VLM, output: Output) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """Hidden states of the images and of the texts, a pair in each row.

        Raises:
            ValueError: the language model is not causal.
        """
        if not model.backbone.causal:
            raise ValueError(
                f"{type(model.backbone).__name__} is not causal: no position of it stands for an image alone; use "
                "another backbone, or objective=blip2"
            )
        sequence = output.sequence
        found = self.find_pairs(sequence)
        rows, places, _, stops = torch.tensor(found, dtype=torch.long).view(-1, 4).to(sequence.ids.device).T
        images = output.hidden[rows, places].float()
        if self.text == "in_row":
            return images, output.hidden[rows, stops - 1].float()
        # Without a pair the language model runs all the same, as the other processes wait for ours.
        texts = [sequence.ids[pair.row, pair.start : pair.stop] for pair in found]
        texts = texts or [sequence.ids.new_zeros(1)] * (processes() > 1)
        if not texts:
            return images, images
        ids = pad_sequence(texts, batch_first=True)
        lengths = torch.tensor([len(text) for text in texts], device=ids.device)
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        return images, self.read(model, ids, mask)[: len(found)]

    def find_pairs(self, sequence: Sequence) -> list[Pair]:
        """Return the first image and the last reply of every sample that has both."""
        learnt = (sequence.labels != IGNORE).cpu()
        samples = torch.zeros_like(learnt) if sequence.segments is None else sequence.segments.cpu()
        found: dict[tuple[int, int], Pair] = {}
        for span in sequence.image_spans:
            row, image = span.sample, span.stop - (not self.marks)
            key = row, int(samples[row, span.start])
            if span.modality != "image" or not span.layout.tokens or key in found:
                continue
            own = learnt[row] & (samples[row] == key[1])
            places = own[span.stop :].nonzero().flatten() + span.stop
            if len(places):
                gaps = places.diff().ne(1).nonzero().flatten()
                start = places[int(gaps[-1]) + 1] if len(gaps) else places[0]
                found[key] = Pair(row, image, int(start), int(places[-1]) + 1)
        return list(found.values())

    def read(self, model: VLM, ids: Int[Tensor, "m t"], mask: Bool[Tensor, "m t"]) -> Float[Tensor, "m d"]:
        """Hidden states at the ends of texts that are padded on the right."""
        hidden, _ = model.run_backbone(model.embed(Batch(Sequence(ids, padding=~mask))))
        return hidden[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1].float()

    def embed_images(self, model: VLM, batch: Batch) -> Float[Tensor, "m 1 d"]:
        """Embed the first image of every row. See `Embedder`."""
        hidden = model(batch).hidden
        places: dict[int, int] = {}
        for span in batch.sequence.image_spans:
            if span.modality == "image" and span.layout.tokens:
                places.setdefault(span.sample, span.stop - (not self.marks))
        return F.normalize(hidden[list(places), list(places.values())].float(), dim=-1)[:, None]

    def embed_texts(self, model: VLM, ids: Int[Tensor, "m t"], mask: Bool[Tensor, "m t"]) -> Float[Tensor, "m 1 d"]:
        """Embed texts. See `Embedder`."""
        return F.normalize(self.read(model, ids, mask), dim=-1)[:, None]
