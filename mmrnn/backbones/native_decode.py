"""Decoding on a CPU: one token through all layers by native code, where nothing speaks against it.

Nothing is kept that can grow stale or take memory: the native code reads the weights where they lie, and all that
stays between two tokens is a list of addresses, which is compared with the model before each use. So training, loading,
moving or replacing weights in between needs no word.
"""

from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import State
from mmrnn_kernels.decode_step import (
    BLOCK_PARAMETERS,
    DTYPES,
    FIRST_BLOCK_PARAMETERS,
    LOW_RANK_PARAMETERS,
    MULTIPLE,
    STATE_NAMES,
    DecodeStep,
    unavailable_reason,
)
from mmrnn_kernels.linear import is_plain_inference

MAX_ROWS = 16
"""Rows that are read at once; for more of them the matrix products of the layers pay."""


class Plan:
    """What the step was prepared for: the modules of a model, its parameters and where these lie."""

    def __init__(self, model: nn.Module):
        modules = [*model.modules()]
        self.children = [
            (module._modules, name, child) for module in modules for name, child in module._modules.items()
        ]
        self.places = [(module._parameters, name) for module in modules for name in module._parameters]
        inside = [model.norm, *model.blocks.modules()]
        self.hooks = [hooks for module in inside for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self.hooked = any(self.hooks)
        self.addresses = self.look()
        self.step = None if self.hooked else prepare(model)

    def look(self) -> list[int]:
        return [0 if (found := group[name]) is None else found.data_ptr() for group, name in self.places]

    def holds(self, dtype: torch.dtype) -> bool:
        """The model is made of the same parts and tensors as when the plan was made."""
        return (
            all(group.get(name) is child for group, name, child in self.children)
            and any(self.hooks) == self.hooked
            and self.look() == self.addresses
            and (self.step is None or self.step.dtype == dtype)
        )


PLANS: "WeakKeyDictionary[nn.Module, Plan]" = WeakKeyDictionary()


def native_step(model: nn.Module, x: Float[Tensor, "b t d"], state: State) -> tuple[Tensor, State] | None:
    """The hidden state of the one position of `x` of an RWKV model and the state behind it; None where the layers have
    to do it.
    """
    weight = model.norm.weight
    if (
        x.shape[1] != 1
        or not 1 <= len(x) <= MAX_ROWS
        or model.training
        or not is_plain_inference(x, weight)
        or x.dtype != weight.dtype
        or unavailable_reason() is not None
    ):
        return None
    plan = PLANS.get(model)
    if plan is None or not plan.holds(weight.dtype):
        plan = PLANS[model] = Plan(model)
    if plan.step is None or not fits(plan.step, x, state):
        return None
    hidden, layers = plan.step(x[:, 0], state.layers)
    return hidden[:, None], State(layers, state.shared)


def prepare(model: nn.Module) -> DecodeStep | None:
    """The addresses of a model whose parts are those that the native code knows; None for any other."""
    found = {(type(block), type(block.time_mix), type(block.channel_mix)) for block in model.blocks}
    if found != {model.native} or any(block.time_mix.backend not in ("auto", "cpu") for block in model.blocks):
        return None
    mix = model.blocks[0].time_mix
    layers = [dict(block.named_parameters()) for block in model.blocks]
    current = not set(LOW_RANK_PARAMETERS) & set(layers[0])
    names = {*BLOCK_PARAMETERS, *(() if current else LOW_RANK_PARAMETERS)}
    if any(set(layer) - set(FIRST_BLOCK_PARAMETERS) != names for layer in layers) or not set(
        FIRST_BLOCK_PARAMETERS
    ) <= set(layers[0]):
        return None
    norm = (model.norm.weight, model.norm.bias)
    tensors = [*norm, *(tensor for layer in layers for tensor in layer.values())]
    summed = (model.width, mix.head_size, len(layers[0]["channel_mix.key.weight"]))
    if any(size % MULTIPLE for size in summed) or not uniform(tensors):
        return None
    return DecodeStep(layers, norm, current=current, eps=model.norm.eps, head_eps=mix.norm.eps)


def uniform(tensors: list[Tensor]) -> bool:
    """All contiguous, on the CPU, and of one type that the native code reads."""
    dtype = tensors[0].dtype
    return dtype in DTYPES and all(
        tensor.dtype == dtype and tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in tensors
    )


def fits(step: DecodeStep, x: Tensor, state: State) -> bool:
    """The state has the shapes of the model; the layers say what is wrong with one that has not."""
    batch, _, width = x.shape
    shapes = {"time_shift": (batch, width), "wkv": (batch, step.heads, step.size, step.size)}
    shapes["channel_shift"] = shapes["time_shift"]
    return len(state.layers) == len(step.layers) and all(
        (tensor := layer.get(name)) is not None and tensor.shape == shapes[name] and tensor.device.type == "cpu"
        for layer in state.layers
        for name in STATE_NAMES
    )
