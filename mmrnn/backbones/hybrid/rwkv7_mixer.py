"""The time mix of RWKV-7 as a mixer."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.backbones.mixer import Mixer, MixerInputs, Shared
from mmrnn.backbones.rwkv import Backend
from mmrnn.backbones.rwkv7 import TimeMix7, default_rank
from mmrnn.backbones.rwkv_init import default_heads
from mmrnn.types import PositiveInt


class RWKV7Mixer(nn.Module, Mixer):
    """Time mix of RWKV-7 (arXiv 2503.14456) with its token shift; later layers mix in the values of the first one.

    Args:
        width: `d`.
        index: place among the layers of the kind.
        head_size: rows and columns of the WKV matrix of a head.
        heads: None: width / head_size.
        decay_rank: rank of the data-dependent decay; None: 1.8 x sqrt(width), the nearest multiple of 32.
        rate_rank: rank of the in-context learning rate; None: 1.8 x sqrt(width), likewise.
        residual_rank: rank of the interpolation with the values of the first layer; None: 1.3 x sqrt(width), likewise.
        gate_rank: rank of the gate; None: 0.6 x width^0.8, likewise.
        backend: implementation of the WKV operator and of the token shift.

    Raises:
        ValueError: `heads` is None and `width` is no multiple of `head_size`.
    """

    recurrent = True

    def __init__(
        self,
        width: int,
        index: int = 0,
        *,
        head_size: PositiveInt = 64,
        heads: PositiveInt | None = None,
        decay_rank: PositiveInt | None = None,
        rate_rank: PositiveInt | None = None,
        residual_rank: PositiveInt | None = None,
        gate_rank: PositiveInt | None = None,
        backend: Backend = "auto",
    ):
        super().__init__()
        self.time_mix = TimeMix7(
            width,
            default_heads(width, heads, head_size),
            head_size,
            decay_rank or default_rank(1.8 * width**0.5),
            rate_rank or default_rank(1.8 * width**0.5),
            None if index == 0 else residual_rank or default_rank(1.3 * width**0.5),
            gate_rank or default_rank(0.6 * width**0.8),
            backend,
        )
        self.width = width

    def reset(self) -> None:
        """Initialise parameters in place, as those of a single block."""
        self.reset_parameters(0, 1)

    def state(self, batch: int) -> dict[str, Tensor]:
        """Return zeros: `time_shift`, the token before, and `wkv`, `b h k v`."""
        mix, weight = self.time_mix, self.time_mix.decay
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return {
            "time_shift": weight.new_zeros(batch, self.width),
            "wkv": weight.new_zeros(batch, mix.heads, mix.head_size, mix.head_size, dtype=dtype),
        }

    def forward(
        self, x: Float[Tensor, "b t d"], state: Mapping[str, Tensor], inputs: MixerInputs, shared: Shared = ()
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor], Shared]:
        """Return the output, the state after the last position, and the values of the first layer."""
        out, wkv, first_values = self.time_mix(x, state["time_shift"], state["wkv"], inputs.bounds, *shared)
        return out, {"time_shift": x[:, -1].clone(), "wkv": wkv}, (first_values,)

    def reset_parameters(self, layer: int, depth: int) -> None:
        """Initialise as published (RWKV-LM)."""
        self.time_mix.norm.reset_parameters()
        self.time_mix.reset_parameters(layer, depth)
