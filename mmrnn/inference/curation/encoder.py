"""An encoder by itself, with the weights that its card or a file brings."""

from collections.abc import Collection, Mapping
from typing import Any

from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.types import Encoder
from mmrnn.weights import load
from mmrnn.weights.pretrained import read_pretrained


def build_encoder(card: Mapping[str, Any], weights: Any = None, *, trusted: Collection[str] = ()) -> Encoder:
    """Build an encoder of images, in evaluation mode and without gradients.

    Args:
        card: of the encoder.
        weights: file, folder or repository of its weights; None: those that the card asks for (`pretrained`).
        trusted: packages beside mmrnn whose classes the card may name.

    Raises:
        ConfigError: the encoder takes no images of one size, or has no weights.
        WeightsError: the tensors do not fit.
        ConnectionError: published weights are asked for, and their hub cannot be reached.
    """
    encoder = instantiate(card, trusted=trusted)
    if encoder.image.resize == "none":
        raise ConfigError(f"encoder: {type(encoder).__name__} takes no images; choose another card")
    if encoder.image.variable_size:
        raise ConfigError(f"encoder: {type(encoder).__name__} takes images of many sizes; choose one with a fixed size")
    if weights is not None:
        load(encoder, weights)
    elif untrained := _without_weights(encoder):
        raise ConfigError(
            f"encoder: {type(untrained).__name__} would have random weights; set weights.encoder=FILE, or "
            "encoder.pretrained to the name of published weights"
        )
    else:
        for target, tensors in read_pretrained(encoder):
            load(target, tensors)
    return encoder.eval().requires_grad_(False)


def _without_weights(encoder: Encoder) -> Encoder | None:
    """Encoder in this one, or itself, that has parameters and asks for no published weights; None: there is none."""
    inner = encoder.inner_encoders()
    if found := next(filter(None, map(_without_weights, inner)), None):
        return found
    lacks = not inner and not encoder.pretrained and any(True for _ in encoder.parameters())
    return encoder if lacks else None
