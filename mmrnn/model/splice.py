"""Visual tokens into the slots that were kept free for them."""

from collections.abc import Sequence as Several

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn.types import ImageSpan, Sequence


def splice(
    embeds: Float[Tensor, "b t d"], visual: Several[Float[Tensor, "_ d"]] | Tensor, blocks: tuple[ImageSpan, ...]
) -> Float[Tensor, "b t d"]:
    """Write image i (`v d`; images may differ in v) into the positions of block i.

    Raises:
        ValueError: the number of images, or of tokens an image, is not the number of slots.
    """
    if len(visual) != len(blocks):
        raise ValueError(f"there are {len(visual)} images, but places for {len(blocks)}")
    if not blocks:
        return embeds
    b, t, d = embeds.shape
    places = []
    for index, (block, image) in enumerate(zip(blocks, visual, strict=True)):
        if block.layout.tokens != len(image):
            raise ValueError(
                f"image {index} became {len(image)} visual tokens, but {block.layout.tokens} slots were kept "
                f"free for it in row {block.sample}"
            )
        places.append(torch.arange(block.start, block.stop) + block.sample * t)
    where = torch.cat(places).to(embeds.device)
    flat = visual.flatten(0, 1) if isinstance(visual, Tensor) else torch.cat(list(visual))
    return embeds.reshape(b * t, d).index_copy(0, where, flat.to(embeds.dtype)).view(b, t, d)


def check_slots(sequence: Sequence) -> None:
    """Every slot belongs to an image, and the other way round.

    Raises:
        ValueError: the counts differ (both are named).
    """
    slots = int(sequence.visual.sum())
    claimed = sum(block.layout.tokens for block in sequence.image_spans)
    if slots != claimed:
        raise ValueError(
            f"the text keeps {slots} slots free, but its {len(sequence.image_spans)} images fill {claimed}"
        )
