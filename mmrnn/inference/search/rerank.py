"""Second ordering of the images that a search has found, by a head that reads each together with the text."""

from collections.abc import Sequence
from pathlib import Path

import torch

from mmrnn.data.image import ImageFile
from mmrnn.inference.embedding import caption_ids, prepare_image, require_embedder
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.reader import DialogueReader
from mmrnn.inference.search.image_search import Match
from mmrnn.types import Matcher


@torch.no_grad()
def rerank(
    reader: DialogueReader, folder: Path, matches: Sequence[Match], text: str, *, batch_size: int = 32
) -> list[Match]:
    """Return the images in the order of the logit that the text belongs to them, plus the cosine (BLIP-2).

    Args:
        reader: of the model.
        folder: that the images lie in.
        matches: images with the cosine of their similarity to the text.
        text: that was searched for.
        batch_size: images that are read at once.

    Raises:
        ImageError: an image cannot be opened.
        ValueError: the model has no head that reads image and text together.
    """
    embedder = require_embedder(reader.model)
    if not isinstance(embedder, Matcher):
        raise ValueError(
            f"{type(embedder).__name__} has no head that reads image and text together; leave out --rerank"
        )
    ids, mask = (each.to(reader.device) for each in caption_ids([text], reader.tokenizer, reader.prompt))
    found = []
    for start in range(0, len(matches), batch_size):
        some = matches[start : start + batch_size]
        prepared = [prepare_image(reader, ImageFile(folder / match.path)) for match in some]
        batch = reader.collator().assemble(prepared).to(reader.device)
        with eval_mode(reader.model):
            pairs = ids.expand(len(some), -1), mask.expand(len(some), -1)
            logits = embedder.match(reader.model, batch, *pairs).tolist()
        found += [Match(match.path, match.score + logit) for match, logit in zip(some, logits, strict=True)]
    return sorted(found, key=lambda match: (-match.score, match.path))
