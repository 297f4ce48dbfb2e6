"""One token through all layers of an RWKV-5 or RWKV-6 in one native call (native/), from weights where they lie.

A token reads every weight once and computes almost nothing with it, so what bounds it is the memory. Nothing is packed
or copied: the weights of the model are read in place, fp32 or bf16, and the activations stay in fp32.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..native import library, obstacle

SOURCE = Path(__file__).parent / "native" / "step.cpp"
MULTIPLE = 16
"""Widths, heads and what else is summed over must be multiples of this."""

DTYPES = (torch.float32, torch.bfloat16)

COMMON = (
    *("norm_time.weight", "norm_time.bias", "norm_channel.weight", "norm_channel.bias"),
    *(f"time_mix.{name}" for name in ("lerp_k", "lerp_v", "lerp_r", "lerp_g", "decay", "bonus")),
    *(f"time_mix.{name}.weight" for name in ("receptance", "key", "value", "gate", "output", "norm")),
    "time_mix.norm.bias",
    *(f"channel_mix.{name}" for name in ("lerp_k", "lerp_r", "key.weight", "receptance.weight", "value.weight")),
)
LOW_RANK = tuple(f"time_mix.{name}" for name in ("lerp_x", "lerp_w", "lerp_down", "lerp_up", "decay_down", "decay_up"))
FIRST = ("norm_in.weight", "norm_in.bias")

STATE = ("time_shift", "wkv", "channel_shift")


class Layer(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in (*FIRST, *COMMON, *LOW_RANK, *STATE, *(f"new {name}" for name in STATE))
    )


class Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "depth", "width", "heads", "size", "ffn", "mix_rank")),
        *((name, ctypes.c_int64) for name in ("decay_rank", "current")),
        *((name, ctypes.c_double) for name in ("eps", "head_eps")),
        *((name, ctypes.c_void_p) for name in ("layers", "embeds", "norm_weight", "norm_bias", "hidden")),
    )


class Linear(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "x", "y")),
        *((name, ctypes.c_int64) for name in ("out", "in", "batch")),
    )


@cache
def function(name: str) -> Callable[..., int]:
    found = getattr(library(SOURCE), name)
    found.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    return found


class Step:
    """The weights of a model as the native code wants them: addresses, good as long as the tensors stay where they are.

    Args:
        layers: the parameters of every block by their names there: those of COMMON, in the first block FIRST, and
            for RWKV-6 LOW_RANK; all contiguous and of one type of DTYPES.
        norm: weight and bias of the last norm.
        current: the learned weights of the token shift are those of the current token (RWKV-5).
        eps, head_eps: of the norms, and of the norm of every head.
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
        down, up = first.get("time_mix.lerp_up"), first.get("time_mix.decay_up")
        self.layers = (Layer * len(layers))()
        for layer, tensors in zip(self.layers, layers, strict=True):
            for name, tensor in tensors.items():
                setattr(layer, name, tensor.data_ptr())
        self.job = Job(
            depth=len(layers),
            width=len(norm[0]),
            heads=self.heads,
            size=self.size,
            ffn=len(first["channel_mix.key.weight"]),
            mix_rank=0 if down is None else down.shape[1],
            decay_rank=0 if up is None else len(up),
            current=current,
            eps=eps,
            head_eps=head_eps,
            layers=ctypes.addressof(self.layers),
            norm_weight=norm[0].data_ptr(),
            norm_bias=norm[1].data_ptr(),
        )

    def __call__(
        self, embeds: Float[Tensor, "b d"], states: Sequence[Mapping[str, Tensor]]
    ) -> tuple[Float[Tensor, "b d"], tuple[dict[str, Tensor], ...]]:
        """The hidden state after the last norm, and the states after this token; those given stay as they are.

        Args:
            states: `time_shift` and `channel_shift` (b d) and `wkv` (b h k v, fp32) of every layer.
        """
        job, (batch, width) = self.job, embeds.shape
        depth, embeds = len(self.layers), embeds.to(self.dtype).contiguous()
        shifts = embeds.new_empty(2, depth, batch, width)
        matrices = embeds.new_empty(depth, batch, self.heads, self.size, self.size, dtype=torch.float32)
        fresh = tuple(
            {"time_shift": time, "wkv": wkv, "channel_shift": channel}
            for time, wkv, channel in zip(shifts[0], matrices, shifts[1], strict=True)
        )
        held = []  # copies live until the call is over
        for layer, old, new in zip(self.layers, states, fresh, strict=True):
            for name in STATE:
                tensor = old[name].to(new[name].dtype).contiguous()
                held.append(tensor)
                setattr(layer, name, tensor.data_ptr())
                setattr(layer, f"new {name}", new[name].data_ptr())
        hidden = torch.empty_like(embeds)
        job.batch, job.embeds, job.hidden = batch, embeds.data_ptr(), hidden.data_ptr()
        call("mmrnn_step", job, self.dtype)
        return hidden, fresh


def linear(x: Float[Tensor, "b in"], weight: Float[Tensor, "out in"]) -> Float[Tensor, "b out"]:
    """X W^T for a few rows; `in` is a multiple of MULTIPLE and the weight contiguous, of one type of DTYPES."""
    rows = x.to(torch.float32).contiguous()
    y = rows.new_empty(len(x), len(weight))
    call("mmrnn_linear", Linear(weight.data_ptr(), rows.data_ptr(), y.data_ptr(), *weight.shape, len(x)), weight.dtype)
    return y.to(x.dtype)


def call(name: str, job: ctypes.Structure, dtype: torch.dtype) -> None:
    if function(name)(ctypes.addressof(job), dtype == torch.bfloat16, torch.get_num_threads()):
        raise MemoryError(f"no memory for the activations of {job.batch} rows")


def blocked() -> str | None:
    """Why none of this can run, or None. The first to ask waits for the compiler."""
    return obstacle(SOURCE)
