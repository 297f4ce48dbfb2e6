"""Quantisation of the linear layers of a model, by torchao."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from mmrnn.io.optional import require
from mmrnn.layers.linear import Linear, PackedLinear
from mmrnn.layers.quantized import Int8Linear, QuantizedLinear
from mmrnn.model.parameter_names import matches
from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, MatrixDtype, Quantizer

LINEAR = (nn.Linear, Linear, PackedLinear)
"""Exact types of the layers that are replaced: a subclass may do more than multiply by its weight."""


class Dequantized(Quantizer):
    """Ordinary linear layers in place of quantised ones, with the weights that the codes stand for."""

    quantizes = False

    def __call__(self, model: VLM, _batches: Iterable[Batch] = ()) -> None:
        """Replace every quantised layer of the model."""
        for name, module in list(model.named_modules()):
            if isinstance(module, QuantizedLinear):
                layer = Linear(module.in_features, module.out_features, bias=False, device="meta")
                layer.weight, layer.bias = nn.Parameter(module.weight), module.bias
                model.set_submodule(name, layer)

    def prepare(self, model: VLM) -> None:
        """Leave the model as it is."""


class Int8(Quantizer):
    """8-bit weights, with a scale for each output of a layer.

    The linear layers in the blocks of the backbone are quantised; the head, the embeddings, the low-rank matrices of
    RWKV and those of LoRA keep their type.

    Args:
        encoders: quantise the linear layers in the blocks of the encoders, too.
        skip: globs of the names of layers that keep their weights (`*.output`).
        matrices: type in which a checkpoint holds the other matrices (embeddings, head, encoders).
    """

    def __init__(self, *, encoders: bool = False, skip: tuple[str, ...] = (), matrices: MatrixDtype = "bf16"):
        self.encoders, self.skip, self.matrices = encoders, tuple(skip), matrices

    def __call__(self, model: VLM, _batches: Iterable[Batch] = ()) -> None:
        """Replace the weights by codes.

        Raises:
            ImportError: torchao is not installed.
            ValueError: the model has no such layers, or is quantised already.
        """
        layers = linear_layers(model, self.encoders, self.skip)
        quantization = _torchao("quantization", "int8")
        config = quantization.Int8WeightOnlyConfig(set_inductor_config=False)
        for name, layer in layers.items():
            quantization.quantize_(layer, config, filter_fn=lambda *_: True)
            found = layer.weight
            made = Int8Linear(layer.in_features, layer.out_features, bias=False)
            made.bias, made.codes, made.scales = layer.bias, found.qdata, found.scale.flatten()
            model.set_submodule(name, made)

    def prepare(self, model: VLM) -> None:
        """Replace the layers by empty ones.

        Raises:
            ValueError: the model has no such layers.
        """
        for name, layer in linear_layers(model, self.encoders, self.skip).items():
            model.set_submodule(name, Int8Linear(layer.in_features, layer.out_features, layer.bias is not None))


def linear_layers(model: VLM, encoders: bool, skip: tuple[str, ...]) -> dict[str, nn.Linear]:
    """Return the linear layers to quantise, by name: those in the blocks of the backbone.

    Args:
        encoders: those in the blocks of the encoders, too.
        skip: globs of the names of layers to leave out.

    Raises:
        ValueError: there are none, a glob matches none, or the model is quantised already.
    """
    if any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise ValueError("the model is quantised already: quantise the one that it was made from")
    parts = {"backbone": model.backbone}
    if encoders:
        parts |= {f"modalities.{name}.encoder": modality.encoder for name, modality in model.modalities.items()}
    found = {
        f"{path}.{name}": module
        for path, part in parts.items()
        for name, module in part.named_modules()
        if type(module) in LINEAR and _is_in_block(name) and "lora_" not in name
    }
    for pattern in skip:
        if not any(matches(name, (pattern,)) for name in found):
            raise ValueError(f"skip ({pattern!r}) matches no linear layer; there are {', '.join(list(found)[:8])} ...")
    found = {name: layer for name, layer in found.items() if not matches(name, skip)}
    if not found:
        raise ValueError(f"{type(model.backbone).__name__} has no linear layers in blocks; use quantize=none")
    return found


def num_weights(module: nn.Module) -> int:
    """Return the number of parameters, those that are stored as codes included."""
    quantised = (layer for layer in module.modules() if isinstance(layer, QuantizedLinear))
    codes = sum(layer.in_features * layer.out_features for layer in quantised)
    return codes + sum(parameter.numel() for parameter in module.parameters())


def _is_in_block(name: str) -> bool:
    """Return True for a module of a numbered block; head, embeddings and their projections stand outside."""
    return any(part.isdigit() for part in name.split("."))


def _torchao(module: str, name: str) -> Any:
    return require(f"torchao.{module}", "torchao", wanted_by=f"quantize={name}", extra="quantize")
