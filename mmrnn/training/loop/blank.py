"""Inputs without content, by which a data-parallel process takes part in collectives that it has nothing for."""

import torch

from mmrnn.model.vlm import VLM
from mmrnn.types import IGNORE, Batch, Sequence


def blank_inputs(model: VLM, *, cached: bool) -> Batch:
    """Return one blank input of every modality, for `VLM.embed`.

    Args:
        model: the model.
        cached: images come as features of the frozen encoder, which is not run.
    """
    images, features = {}, {}
    for name, modality in model.modalities.items():
        height, width = modality.image.size
        if cached and name == "image":
            features[name] = torch.zeros(1, modality.encoder.layout(height, width).tokens, modality.encoder.width)
        else:
            channels = () if modality.image.resize == "none" else (3,)
            images[name] = torch.zeros(1, *channels, height, width)
    return Batch(Sequence(torch.zeros(0, 0, dtype=torch.long)), images, features)


def blank_row(pad: int, rows: int = 1) -> Batch:
    """Return a micro-batch without content: one token of padding a row.

    Args:
        pad: id of the token.
        rows: of the micro-batch.
    """
    ids = torch.full((rows, 1), pad)
    padding = torch.ones_like(ids, dtype=torch.bool)
    return Batch(Sequence(ids, labels=torch.full_like(ids, IGNORE), segments=torch.zeros_like(ids), padding=padding))
