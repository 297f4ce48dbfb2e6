"""CPU decoding: one token through all RWKV blocks in one native call, wherever the result is the same.

The native code reads the weights, or their 8-bit codes, in place. The addresses kept between two tokens are compared
with the model before each use, so training, loading, moving or replacing weights in between is safe.
"""

import warnings
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.layers.quantized import Int8Linear, QuantizedLinear
from mmrnn.types import State
from mmrnn_kernels.common.cpu_features import has_avx512, multiplies_bf16
from mmrnn_kernels.decode_step import (
    BLOCK_PARAMETERS,
    DTYPES,
    FIRST_BLOCK_PARAMETERS,
    LOW_RANK_PARAMETERS,
    MATRICES,
    MULTIPLE,
    STATE_NAMES,
    DecodeStep,
    unavailable_reason,
)
from mmrnn_kernels.linear import is_plain_inference

PLAIN = (Tensor, nn.Parameter)
"""Types of tensors that have an address; a subclass (distributed, quantised) may have none."""

SLOWER = (
    "the native decoding step of RWKV does not read these codes, so that the model decodes block by block, which is "
    "slower: it reads those of quantize=int8 where all layers of the blocks have them and their scales are in fp32"
)
"""Warning about a quantised model that the native code cannot compute."""

MAX_ROWS = {torch.float32: 40, torch.bfloat16: 24}
"""Largest batch; for more rows the matrix products of the blocks are faster (`tools/bench_decode_rows.py`)."""

MAX_AVX512_ROWS = 127
"""Largest batch in fp32 with AVX-512."""

MAX_EMULATED_ROWS = 256
"""Largest batch in bf16 on a processor that has no such products: there the blocks were slower at every size tried."""


class PreparedStep:
    """Native step of a model, with the modules and the tensor addresses that it was prepared for.

    Attributes:
        step: None: the native code cannot compute this model.
    """

    def __init__(self, model: nn.Module):
        modules = [*model.modules()]
        self.children = [
            (module._modules, name, child) for module in modules for name, child in module._modules.items()
        ]
        groups = [group for module in modules for group in (module._parameters, module._buffers)]
        self.tensors = [(group, name) for group in groups for name in group]
        inner = [model.norm, *model.blocks.modules()]
        self.hooks = [hooks for module in inner for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self.has_hooks = any(self.hooks)
        self.addresses = self.current_addresses()
        self.step = None if self.has_hooks else build_step(model)
        if any(isinstance(module, QuantizedLinear) for module in inner) and self.step is None and model.native:
            warnings.warn(SLOWER, RuntimeWarning, stacklevel=2)

    def current_addresses(self) -> list[int]:
        """Return the address of every parameter and buffer; 0 for None, that of the object for a tensor subclass."""
        tensors = (group[name] for group, name in self.tensors)
        return [0 if x is None else x.data_ptr() if type(x) in PLAIN else id(x) for x in tensors]

    def is_valid(self, dtype: torch.dtype) -> bool:
        """Return True while the model has the modules, hooks, tensors and dtype that this was prepared for."""
        return (
            all(group.get(name) is child for group, name, child in self.children)
            and any(self.hooks) == self.has_hooks
            and self.current_addresses() == self.addresses
            and (self.step is None or self.step.dtype == dtype)
        )


PREPARED: "WeakKeyDictionary[nn.Module, PreparedStep]" = WeakKeyDictionary()


def native_decode_step(
    model: nn.Module, x: Float[Tensor, "b t d"], state: State
) -> tuple[Float[Tensor, "b t d"], State] | None:
    """Return the hidden states of an RWKV model for a one-token input, and the next state.

    None: the blocks have to compute it (a longer input, training, autocast, hooks, other parts or dtypes, no compiler).
    """
    weight = model.norm.weight
    if (
        x.shape[1] != 1
        or model.training
        or not is_plain_inference(x, weight)
        or not 1 <= len(x) <= max_rows(x.dtype)
        or x.dtype != weight.dtype
        or unavailable_reason() is not None
    ):
        return None
    prepared = PREPARED.get(model)
    if prepared is None or not prepared.is_valid(weight.dtype):
        prepared = PREPARED[model] = PreparedStep(model)
    if prepared.step is None or not accepts_state(prepared.step, x, state):
        return None
    hidden, layers = prepared.step(x[:, 0], state.layers)
    return hidden[:, None], State(layers, state.shared, model.state_origin)


def max_rows(dtype: torch.dtype) -> int:
    """Return the largest batch of this type that the native step is faster for on this processor."""
    if dtype == torch.bfloat16 and not multiplies_bf16():
        return MAX_EMULATED_ROWS
    if dtype == torch.float32 and has_avx512():
        return MAX_AVX512_ROWS
    return MAX_ROWS.get(dtype, 0)


def build_step(model: nn.Module) -> DecodeStep | None:
    """Collect the weights for the native code; None: the model has parts, parameters or sizes that it does not know."""
    kinds = {(type(block), type(block.time_mix), type(block.channel_mix)) for block in model.blocks}
    if kinds != {model.native} or any(block.time_mix.backend not in ("auto", "cpu") for block in model.blocks):
        return None
    mix = model.blocks[0].time_mix
    layers = [named_tensors(block) for block in model.blocks]
    current = not set(LOW_RANK_PARAMETERS) & set(layers[0])
    scales = {f"{name}.scales" for name in MATRICES} if f"{MATRICES[0]}.scales" in layers[0] else set()
    names = {*BLOCK_PARAMETERS, *scales, *(() if current else LOW_RANK_PARAMETERS)}
    if any(set(layer) - set(FIRST_BLOCK_PARAMETERS) != names for layer in layers) or not set(
        FIRST_BLOCK_PARAMETERS
    ) <= set(layers[0]):
        return None
    codes = {f"{name}.weight" for name in MATRICES} if scales else set()
    norm = (model.norm.weight, model.norm.bias)
    dtypes = dict.fromkeys(codes, torch.int8) | dict.fromkeys(scales, torch.float32)
    readable = all(is_readable(x, dtypes.get(name, norm[0].dtype)) for layer in layers for name, x in layer.items())
    summed_sizes = (model.width, mix.head_size, len(layers[0]["channel_mix.key.weight"]))
    if norm[0].dtype not in DTYPES or not readable or any(size % MULTIPLE for size in summed_sizes):
        return None
    if not all(is_readable(x, norm[0].dtype) for x in norm):
        return None
    return DecodeStep(layers, norm, current=current, eps=model.norm.eps, head_eps=mix.norm.eps)


def named_tensors(block: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a block by name; 8-bit codes stand for the weights of their layers."""
    found = dict(block.named_parameters())
    for name, layer in block.named_modules():
        if isinstance(layer, QuantizedLinear):
            names = {"codes": "weight"} if isinstance(layer, Int8Linear) else {}
            found |= {f"{name}.{names.get(key, key)}": value for key, value in layer.named_buffers()}
    return found


def is_readable(x: Tensor, dtype: torch.dtype) -> bool:
    """Return True for a contiguous plain CPU tensor of the type that the native code reads there."""
    return type(x) in PLAIN and x.dtype == dtype and x.device.type == "cpu" and x.is_contiguous()


def accepts_state(step: DecodeStep, x: Float[Tensor, "b t d"], state: State) -> bool:
    """Return True for a state of the shapes of the model; the blocks raise the error for any other."""
    batch, _, width = x.shape
    shapes = {"time_shift": (batch, width), "wkv": (batch, step.heads, step.size, step.size)}
    shapes["channel_shift"] = shapes["time_shift"]
    return len(state.layers) == step.depth and all(
        type(tensor := layer.get(name)) in PLAIN and tensor.shape == shapes[name] and tensor.device.type == "cpu"
        for layer in state.layers
        for name in STATE_NAMES
    )
