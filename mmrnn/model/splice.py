"""Splicing of visual tokens into the slots of a text."""

from collections.abc import Sequence as Several

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn.types import ImageSpan, Sequence


def splice(
    embeds: Float[Tensor, "b t d"], visual: Several[Float[Tensor, "_ d"]] | Tensor, spans: tuple[ImageSpan, ...]
) -> Float[Tensor, "b t d"]:
    """Write the tokens of image i (`v d`; `v` may differ between images) into the positions of span i.

    Raises:
        ValueError: images and spans, or the tokens and slots of an image, differ in number.
    """
    if len(visual) != len(spans):
        raise ValueError(f"there are {len(visual)} images, but slots for {len(spans)}")
    if not spans:
        return embeds
    b, t, d = embeds.shape
    places = []
    for index, (span, image) in enumerate(zip(spans, visual, strict=True)):
        if span.layout.tokens != len(image):
            raise ValueError(
                f"image {index} has {len(image)} visual tokens, but row {span.sample} has {span.layout.tokens} slots "
                "for it"
            )
        places.append(torch.arange(span.start, span.stop) + span.sample * t)
    where = torch.cat(places).to(embeds.device)
    flat = visual.flatten(0, 1) if isinstance(visual, Tensor) else torch.cat(list(visual))
    return embeds.reshape(b * t, d).index_copy(0, where, flat.to(embeds.dtype)).view(b, t, d)


def check_slots(sequence: Sequence) -> None:
    """Check that every slot belongs to an image.

    Raises:
        ValueError: the number of slots differs from the number of visual tokens.
    """
    slots = int(sequence.visual.sum())
    tokens = sum(span.layout.tokens for span in sequence.image_spans)
    if slots != tokens:
        raise ValueError(
            f"the text has {slots} slots, but its {len(sequence.image_spans)} images have {tokens} visual tokens"
        )
