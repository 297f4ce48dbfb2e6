"""Activation-aware weight quantisation (AWQ, arXiv 2306.00978) of torchao: inputs are observed, then scaled."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmrnn.io.optional import require
from mmrnn.model.vlm import VLM
from mmrnn.types import Batch

MAX_POSITIONS = 512
"""Positions of all samples whose inputs a layer is calibrated with: each is multiplied for twenty scales."""


def put_observers(model: VLM, layers: Mapping[str, nn.Linear], config: Any) -> None:
    """Replace layers by those of torchao that record their inputs.

    Args:
        config: of torchao, by which the weights will be quantised.
    """
    for name, layer in layers.items():
        model.set_submodule(name, _awq_step(layer, config, "prepare"))


@torch.no_grad()
def observe(model: VLM, layers: Iterable[str], batches: Iterable[Batch], samples: int) -> None:
    """Run a model over samples, so that its layers record their inputs, evenly spaced ones of them.

    Args:
        layers: names of the layers with observers.
        batches: a sample each.
        samples: number of samples that there should be.

    Raises:
        ValueError: there are no samples, or a layer was not reached.
    """
    observers = {name: model.get_submodule(name).act_obs for name in layers}
    kept: dict[str, list[Tensor]] = {name: [] for name in observers}
    limit = max(1, MAX_POSITIONS // samples)
    for batch in batches:
        model(batch)
        for name, observer in observers.items():
            rows = [seen.flatten(0, -2) for seen in observer.inputs]
            # Of each sample a few positions: all of them, of all layers, would fill the memory.
            kept[name] += [some[:: -(-len(some) // limit)].bfloat16() for some in rows if len(some)]
            observer.inputs.clear()
    for name, observer in observers.items():
        observer.inputs += kept[name]
    empty = [name for name, observer in observers.items() if not observer.inputs]
    if len(empty) == len(observers):
        raise ValueError(
            f"AWQ observes the model on {samples} samples, and there are none: use `mmrnn convert RUN OUT "
            "quantize=int4 quantize.awq_samples=N`, or quantize.awq_samples=0"
        )
    if empty:
        raise ValueError(f'the samples did not reach {empty[0]}; leave the layer out: quantize.skip=["{empty[0]}"]')


def with_observers(layer: nn.Module, config: Any) -> nn.Module:
    """Quantise a layer with the scales that suit its recorded inputs best; computed in bf16."""
    layer.weight = layer.act_obs.weight = nn.Parameter(layer.weight.detach().to("cpu", torch.bfloat16))
    layer.bias = layer.act_obs.bias = None
    return _awq_step(layer, config, "convert")


def _awq_step(layer: nn.Module, config: Any, step: str) -> nn.Module:
    wanted = {"wanted_by": "quantize.awq_samples", "extra": "quantize"}
    awq = require("torchao.prototype.awq", "torchao", **wanted)
    quantization = require("torchao.quantization", "torchao", **wanted)
    holder = nn.ModuleList([layer])
    quantization.quantize_(holder, awq.AWQConfig(config, step=step), filter_fn=lambda module, _: module is layer)
    return holder[0]
