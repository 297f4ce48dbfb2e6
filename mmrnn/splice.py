"""Visual tokens into the slots that were kept free for them."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn.types import Block, Sequence


def splice(
    embeds: Float[Tensor, "b t d"], visual: Float[Tensor, "m v d"], blocks: tuple[Block, ...]
) -> Float[Tensor, "b t d"]:
    """Write picture i into the positions of block i.

    Raises:
        ValueError: the number of pictures, or of tokens a picture, is not the number of slots.
    """
    if len(visual) != len(blocks):
        raise ValueError(f"there are {len(visual)} pictures, but places for {len(blocks)}")
    if not blocks:
        return embeds
    b, t, d = embeds.shape
    places = []
    for index, block in enumerate(blocks):
        if block.layout.tokens != visual.shape[1]:
            raise ValueError(
                f"picture {index} became {visual.shape[1]} visual tokens, but {block.layout.tokens} slots were kept "
                f"free for it in row {block.sample}"
            )
        places.append(torch.arange(block.start, block.stop) + block.sample * t)
    where = torch.cat(places).to(embeds.device)
    flat = embeds.reshape(b * t, d).index_copy(0, where, visual.reshape(-1, d).to(embeds.dtype))
    return flat.view(b, t, d)


def check_slots(sequence: Sequence) -> None:
    """Every slot belongs to a picture, and the other way round.

    Raises:
        ValueError: the counts differ (both are named).
    """
    slots = int(sequence.visual.sum())
    claimed = sum(block.layout.tokens for block in sequence.blocks)
    if slots != claimed:
        raise ValueError(f"the text keeps {slots} slots free, but its {len(sequence.blocks)} pictures fill {claimed}")
