"""The decoding step. It reads every weight once and computes almost nothing with it, so memory bandwidth bounds it:
weights are read in place, fp32, bf16 or 8-bit codes, without packing or copies; activations are fp32.
"""

import ctypes
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .cpu import call

BLOCK_PARAMETERS = (
    *("norm_time.weight", "norm_time.bias", "norm_channel.weight", "norm_channel.bias"),
    *(f"time_mix.{name}" for name in ("lerp_k", "lerp_v", "lerp_r", "lerp_g", "decay", "bonus")),
    *(f"time_mix.{name}.weight" for name in ("receptance", "key", "value", "gate", "output", "norm")),
    "time_mix.norm.bias",
    *(f"channel_mix.{name}" for name in ("lerp_k", "lerp_r", "key.weight", "receptance.weight", "value.weight")),
)
"""Parameters of every block, by their names in the module."""

LOW_RANK_PARAMETERS = tuple(
    f"time_mix.{name}" for name in ("lerp_x", "lerp_w", "lerp_down", "lerp_up", "decay_down", "decay_up")
)
"""Parameters that RWKV-6 has in every block besides."""

FIRST_BLOCK_PARAMETERS = ("norm_in.weight", "norm_in.bias")
"""Parameters that the first block has besides."""

MATRICES = (
    *(f"time_mix.{name}" for name in ("receptance", "key", "value", "gate", "output")),
    *(f"channel_mix.{name}" for name in ("key", "receptance", "value")),
)
"""Layers of a block whose weights may be 8-bit codes (`NAME.weight`), with a scale for each output (`NAME.scales`)."""

STATE_NAMES = ("time_shift", "wkv", "channel_shift")
"""Tensors in the state of a layer."""


class Layer(ctypes.Structure):
    """Addresses of the parameters of a block, and of its states before and after."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in (
            *FIRST_BLOCK_PARAMETERS,
            *BLOCK_PARAMETERS,
            *LOW_RANK_PARAMETERS,
            *(f"{name}.scales" for name in MATRICES),
            *STATE_NAMES,
            *(f"new {name}" for name in STATE_NAMES),
        )
    )


class StepArguments(ctypes.Structure):
    """Arguments of `mmrnn_decode_step`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "depth", "width", "heads", "size", "ffn", "mix_rank")),
        *((name, ctypes.c_int64) for name in ("decay_rank", "has_codes", "current")),
        *((name, ctypes.c_double) for name in ("eps", "head_eps")),
        *((name, ctypes.c_void_p) for name in ("layers", "embeds", "norm_weight", "norm_bias", "hidden")),
    )


class DecodeStep:
    """Addresses of the weights of a model for the native code, valid as long as the tensors stay where they are.

    Several threads may call one step at the same time: every call fills tables of its own.

    Args:
        layers: the parameters of every block by their names there: BLOCK_PARAMETERS, in the first block
            FIRST_BLOCK_PARAMETERS, and for RWKV-6 LOW_RANK_PARAMETERS; all contiguous and of one type of DTYPES, but
            for the weights of all MATRICES where these are codes; their scales are in fp32.
        norm: weight and bias of the final norm.
        current: whether the learned weights of the token shift belong to the current token (RWKV-5) or to the previous.
        eps, head_eps: of the norms, and of the group norm of the heads.
    """

    def __init__(
        self,
        layers: Sequence[Mapping[str, Tensor]],
        norm: tuple[Tensor, Tensor],
        *,
        current: bool,
        eps: float,
        head_eps: float,
    ):
        first = layers[0]
        self.heads, self.size = first["time_mix.bonus"].shape
        self.dtype = norm[0].dtype
        lerp_up, decay_up = first.get("time_mix.lerp_up"), first.get("time_mix.decay_up")
        self.depth = len(layers)
        table = (Layer * self.depth)()
        for layer, tensors in zip(table, layers, strict=True):
            for name, tensor in tensors.items():
                setattr(layer, name, tensor.data_ptr())
        self.layers = bytes(table)
        arguments = StepArguments(
            depth=self.depth,
            width=len(norm[0]),
            heads=self.heads,
            size=self.size,
            ffn=len(first["channel_mix.key.weight"]),
            mix_rank=0 if lerp_up is None else lerp_up.shape[1],
            decay_rank=0 if decay_up is None else len(decay_up),
            has_codes=f"{MATRICES[0]}.scales" in first,
            current=current,
            eps=eps,
            head_eps=head_eps,
            norm_weight=norm[0].data_ptr(),
            norm_bias=norm[1].data_ptr(),
        )
        self.arguments = bytes(arguments)

    def __call__(
        self, embeds: Float[Tensor, "b d"], states: Sequence[Mapping[str, Tensor]]
    ) -> tuple[Float[Tensor, "b d"], tuple[dict[str, Tensor], ...]]:
        """Compute the hidden state after the final norm and the states after this token; `states` are not changed.

        Args:
            states: `time_shift` and `channel_shift` (b d) and `wkv` (b h k v, fp32) of every layer.

        Raises:
            MemoryError: there is no memory for the activations.
        """
        arguments = StepArguments.from_buffer_copy(self.arguments)
        layers = (Layer * self.depth).from_buffer_copy(self.layers)
        embeds = embeds.to(self.dtype).contiguous()
        new_states = self.empty_states(embeds)
        inputs = []  # copies must live until the call has ended
        for layer, old, new in zip(layers, states, new_states, strict=True):
            for name in STATE_NAMES:
                tensor = old[name].to(new[name].dtype).contiguous()
                inputs.append(tensor)
                setattr(layer, name, tensor.data_ptr())
                setattr(layer, f"new {name}", new[name].data_ptr())
        hidden = torch.empty_like(embeds)
        arguments.batch, arguments.layers = len(embeds), ctypes.addressof(layers)
        arguments.embeds, arguments.hidden = embeds.data_ptr(), hidden.data_ptr()
        call("mmrnn_decode_step", arguments, self.dtype)
        return hidden, new_states

    def empty_states(self, embeds: Float[Tensor, "b d"]) -> tuple[dict[str, Tensor], ...]:
        """Allocate the states of all layers."""
        batch, width = embeds.shape
        shifts = embeds.new_empty(2, self.depth, batch, width)
        matrices = embeds.new_empty(self.depth, batch, self.heads, self.size, self.size, dtype=torch.float32)
        return tuple(
            {"time_shift": time, "wkv": wkv, "channel_shift": channel}
            for time, wkv, channel in zip(shifts[0], matrices, shifts[1], strict=True)
        )
