"""Embedding of images and texts by a model that was trained with a contrastive objective, and their similarity."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmrnn.data.collate import PreparedSample
from mmrnn.data.image import ImageLike, image_source
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.reader import DialogueReader
from mmrnn.model.vlm import VLM
from mmrnn.prompts import tokenize
from mmrnn.types import IGNORE, TAG, Embedder, ImageSource, Layout, Prompt, Sample, Tokenizer, Turn


def require_embedder(model: VLM) -> Embedder:
    """Return what embeds images and texts.

    Raises:
        ValueError: the model has no such thing.
    """
    embedder = model.find_embedder()
    if embedder is None:
        raise ValueError(
            "this model embeds no images and texts: it was not trained with a contrastive objective, or saved by a "
            "version of mmrnn that did not keep its heads; train one with objective=blip2 (recipe=blip2_stage1), or "
            "any design with objective=contrastive"
        )
    return embedder


def embed_images(
    reader: DialogueReader, images: Sequence[ImageLike], *, batch_size: int = 32
) -> Float[Tensor, "n q w"]:
    """Return the vectors of images, on the CPU in single precision.

    Args:
        reader: of the model.
        images: at least one.
        batch_size: images that are embedded at once.

    Raises:
        ImageError: an image cannot be opened.
        ValueError: there are no images, or the model embeds none.
    """
    require_embedder(reader.model)
    if not images:
        raise ValueError("there are no images to embed")
    found = []
    for start in range(0, len(images), batch_size):
        prepared = [prepare_image(reader, image_source(image)) for image in images[start : start + batch_size]]
        found.append(embed_prepared(reader, prepared))
    return torch.cat(found)


def prepare_image(reader: DialogueReader, image: ImageSource) -> PreparedSample:
    """Open an image and prepare it for its encoder. Any thread may call it.

    Raises:
        ImageError: it cannot be opened.
    """
    return reader.collator().prepare(Sample((Turn("user", TAG), Turn("assistant", "")), (image,)))


@torch.no_grad()
def embed_prepared(reader: DialogueReader, prepared: Sequence[PreparedSample]) -> Float[Tensor, "n q w"]:
    """Return the vectors of prepared images, at least one, as one batch, on the CPU in single precision.

    Raises:
        ValueError: the model embeds no images.
    """
    embedder = require_embedder(reader.model)
    batch = reader.collator().assemble(prepared).to(reader.device)
    with eval_mode(reader.model):
        return embedder.embed_images(reader.model, batch).float().cpu()


@torch.no_grad()
def embed_texts(reader: DialogueReader, texts: Sequence[str], *, batch_size: int = 32) -> Float[Tensor, "n q w"]:
    """Return the vectors of texts, on the CPU in single precision.

    A text is written as training writes the caption of an image: as the reply of a dialogue that shows it.

    Args:
        reader: of the model.
        texts: at least one, none empty.
        batch_size: texts that are embedded at once.

    Raises:
        ValueError: there are no texts, one is empty or too long, or the model embeds none.
    """
    embedder = require_embedder(reader.model)
    if not texts:
        raise ValueError("there are no texts to embed")
    found = []
    with eval_mode(reader.model):
        for start in range(0, len(texts), batch_size):
            some = texts[start : start + batch_size]
            ids, mask = caption_ids(some, reader.tokenizer, reader.prompt, alone=embedder.reads_replies)
            vectors = embedder.embed_texts(reader.model, ids.to(reader.device), mask.to(reader.device))
            found.append(vectors.float().cpu())
    return torch.cat(found)


def caption_ids(
    texts: Sequence[str], tokenizer: Tokenizer, prompt: Prompt, *, alone: bool = False
) -> tuple[Int[Tensor, "m t"], Bool[Tensor, "m t"]]:
    """Return the ids of captions as training writes them behind an image, without its slots, and where they are.

    Args:
        alone: without the words around the caption.

    Raises:
        ValueError: a text is empty, or the prompt cannot format one.
    """
    rows = []
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"a text to embed is a string with words, and {text!r:.40} is none")
        spans = prompt.spans((Turn("user", TAG), Turn("assistant", text)), 1)
        row = tokenize(spans, tokenizer, [Layout()])
        targets = [place for place, label in enumerate(row.labels) if label != IGNORE]
        kept = targets if alone else range(targets[-1] + 1)
        rows.append(torch.tensor([row.ids[place] for place in kept if row.ids[place] >= 0]))
    known = [torch.ones_like(row, dtype=torch.bool) for row in rows]
    return pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad), pad_sequence(known, batch_first=True)


def similarity(one: Float[Tensor, "n q w"], other: Float[Tensor, "m p w"]) -> Float[Tensor, "n m"]:
    """Return the cosine of every pair of items.

    Where an image has several vectors, its similarity to a text is that of its best vector (BLIP-2), and two images are
    compared vector by vector: the mean cosine of the vectors of the same number.

    Raises:
        ValueError: the vectors differ in size.
    """
    if one.shape[-1] != other.shape[-1]:
        raise ValueError(f"vectors of {one.shape[-1]} and of {other.shape[-1]} numbers cannot be compared")
    if one.shape[1] == other.shape[1]:
        return one.flatten(1) @ other.flatten(1).T / one.shape[1]
    pairs = (one.flatten(0, 1) @ other.flatten(0, 1).T).view(len(one), one.shape[1], len(other), other.shape[1])
    return pairs.amax((1, 3))
