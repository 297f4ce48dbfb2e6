"""Quantisation of the linear layers of a model, by torchao."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from mmrnn.io.optional import require
from mmrnn.layers.linear import Linear, PackedLinear
from mmrnn.layers.quantized import MULTIPLE, Int4Linear, Int8Linear, QuantizedLinear
from mmrnn.model.awq import observe, put_observers, with_observers
from mmrnn.model.parameter_names import matches
from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, MatrixDtype, NonNegativeInt, Quantizer

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
        quantization = require("torchao.quantization", "torchao", wanted_by="quantize=int8", extra="quantize")
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


class Int4(Quantizer):
    """4-bit weights, with a scale and a zero point for each group of inputs of each output.

    The layers are those of `Int8`. Products are computed in bf16 on a CPU.

    Args:
        group_size: inputs that share a scale; a layer whose inputs it does not divide is refused.
        ranges: `minmax`: of the weights of a group; `hqq`: those that fit most of them best (half-quadratic
            quantisation).
        awq_samples: samples of the data whose activations decide which inputs get finer steps (AWQ, arXiv 2306.00978);
            0: every input counts alike.
        encoders: quantise the linear layers in the blocks of the encoders, too.
        skip: globs of the names of layers that keep their weights (`*.output`).
        matrices: type in which a checkpoint holds the other matrices (embeddings, head, encoders).
    """

    def __init__(
        self,
        *,
        group_size: Literal[32, 64, 128] = 32,
        ranges: Literal["minmax", "hqq"] = "minmax",
        awq_samples: NonNegativeInt = 0,
        encoders: bool = False,
        skip: tuple[str, ...] = (),
        matrices: MatrixDtype = "bf16",
    ):
        self.group_size, self.ranges, self.calibration_samples = group_size, ranges, awq_samples
        self.encoders, self.skip, self.matrices = encoders, tuple(skip), matrices

    def __call__(self, model: VLM, batches: Iterable[Batch] = ()) -> None:
        """Replace the weights by codes.

        Args:
            batches: of the samples for AWQ, a sample each.

        Raises:
            ImportError: torchao is not installed.
            ValueError: the model has no such layers, or one of a size that cannot be quantised; there are no samples
                for AWQ, or they do not reach a layer.
        """
        layers = self._layers(model)
        wanted = {"wanted_by": "quantize=int4", "extra": "quantize"}
        quantization = require("torchao.quantization", "torchao", **wanted)
        int4 = require("torchao.prototype.quantization.int4", "torchao", **wanted)
        config = int4.PrototypeInt4WeightOnlyConfig(
            group_size=self.group_size,
            int4_choose_qparams_algorithm="hqq" if self.ranges == "hqq" else "tinygemm",
            set_inductor_config=False,
        )
        awq = self.calibration_samples > 0
        if awq:
            put_observers(model, layers, config)
            observe(model, layers, batches, self.calibration_samples)
        for name, layer in layers.items():
            if awq:
                found = with_observers(model.get_submodule(name), config)
            else:
                found = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
                found.weight = nn.Parameter(layer.weight.detach().to("cpu", torch.bfloat16))
                quantization.quantize_(found, config, filter_fn=lambda *_: True)
            made = self._empty(layer, awq=awq)
            made.fill(found.weight.qdata, found.weight.scale_and_zero, found.weight.act_pre_scale)
            made.bias = layer.bias
            model.set_submodule(name, made.to(layer.weight.device))

    def prepare(self, model: VLM) -> None:
        """Replace the layers by empty ones.

        Raises:
            ValueError: the model has no such layers, or one of a size that cannot be quantised.
        """
        for name, layer in self._layers(model).items():
            model.set_submodule(name, self._empty(layer, awq=self.calibration_samples > 0))

    def _empty(self, layer: nn.Linear, *, awq: bool) -> Int4Linear:
        bias = layer.bias is not None
        return Int4Linear(layer.in_features, layer.out_features, bias, group_size=self.group_size, awq=awq)

    def _layers(self, model: VLM) -> dict[str, nn.Linear]:
        """Layers to quantise, all of sizes that can be."""
        layers = linear_layers(model, self.encoders, self.skip)
        for name, layer in layers.items():
            if layer.in_features % self.group_size:
                raise ValueError(
                    f"{name} has {layer.in_features} inputs, which group_size ({self.group_size}) does not divide; use "
                    f'a smaller quantize.group_size, or leave the layer out: quantize.skip=["{name}"]'
                )
            if layer.out_features % MULTIPLE:
                raise ValueError(
                    f"{name} has {layer.out_features} outputs, and the products of 4-bit codes take multiples of "
                    f'{MULTIPLE}; leave the layer out: quantize.skip=["{name}"]'
                )
        return layers


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
