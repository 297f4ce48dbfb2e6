"""Masks, caches and logits as `transformers` makes them."""

from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrnn.backbones.hf_fields import ConfigFields
from mmrnn.types import Backbone, State


def native_masks(
    config: Any, x: Tensor, cache: Any, positions: Tensor, mask: Tensor, *, window: int | None, causal: bool
) -> Any:
    """Return the masks that an architecture makes itself (of windows, for eager attention ...), restricted to `mask`.

    Args:
        config: of the model.
        x: embeddings `b t d` of the new tokens.
        cache: of the tokens before.
        positions: of the new tokens.
        mask: True where a query may attend to a key, `b 1 t s`, over cached and new keys.
        window: keys that layers with a sliding window attend to; None: there are no such layers.
        causal: `mask` is within the causal mask; otherwise it takes the place of it.

    Raises:
        ValueError: `mask` is not causal, and layers attend within a window.
    """
    from transformers.masking_utils import create_masks_for_generate

    if not causal and window is not None:
        raise ValueError(
            f"{config.model_type} attends within a window, which this mask would replace; use mask=causal, or set "
            "arch.sliding_window=null where the architecture accepts it"
        )
    past = mask.shape[3] - mask.shape[2]

    def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask[row, 0, query - past, key]

    inputs = {"config": config, "inputs_embeds": x, "attention_mask": None, "position_ids": positions}
    inputs |= {"and_mask_function": allowed, "or_mask_function": None if causal else allowed}
    # The names of the cache and its position differ between versions of transformers.
    inputs |= {"cache": cache, "past_key_values": cache, "cache_position": torch.arange(past, mask.shape[3])}
    known = signature(create_masks_for_generate).parameters
    return create_masks_for_generate(**{name: value for name, value in inputs.items() if name in known})


def change_logits(logits: Tensor, fields: ConfigFields) -> Tensor:
    """Do what an architecture does with the output of its head: a factor (Cohere), a soft cap (Gemma-2)."""
    logits = logits if fields.logit_factor == 1.0 else logits * fields.logit_factor
    return logits if fields.logit_cap is None else torch.tanh(logits / fields.logit_cap) * fields.logit_cap


def recompute_layers(model: nn.Module, every: int) -> int:
    """Recompute the layers 0, n, 2n, ... of a model of transformers in the backward pass; return `every`.

    Raises:
        ValueError: the architecture has no layers that transformers could recompute.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if every and not layers:
        raise ValueError(f"transformers recomputes no layers of {model.config.model_type}; set grad_checkpointing=0")
    for index, layer in enumerate(layers if every else ()):
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        layer.gradient_checkpointing = index % every == 0
    return every


def recomputes(backbone: Backbone, state: State) -> bool:
    """Return True where layers will be recomputed: such a layer keeps no KV cache, as it would write it twice.

    Raises:
        ValueError: `state` is not the initial one.
    """
    if not (backbone.grad_checkpointing and backbone.training and torch.is_grad_enabled()):
        return False
    if state.layers[0]["key"].shape[2] or "encoder_output" in state.shared:
        raise ValueError("layers that are recomputed cannot continue from a state; set grad_checkpointing=0")
    return True


def fill_cache(state: State) -> Any:
    """Convert a state to a cache of transformers."""
    from transformers import DynamicCache

    if state.layers[0]["key"].shape[2] == 0:
        return DynamicCache()
    return DynamicCache([(layer["key"], layer["value"]) for layer in state.layers])


def read_cache(cache: Any) -> tuple[dict[str, Tensor], ...]:
    """Convert a cache of transformers to the layers of a state."""
    return tuple({"key": layer.keys, "value": layer.values} for layer in cache.layers)
