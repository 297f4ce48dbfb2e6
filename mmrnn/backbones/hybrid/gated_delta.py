"""Gated DeltaNet (arXiv 2412.06464) and Kimi Delta Attention (arXiv 2510.26692) as mixers."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones.mixer import Mixer, MixerInputs, Shared
from mmrnn.backbones.packed_rows import run_wkv
from mmrnn.backbones.rwkv import Backend
from mmrnn.layers.linear import Linear
from mmrnn.layers.norm import GatedRMSNorm
from mmrnn.layers.short_conv import ShortConvolution
from mmrnn.layers.step_size import init_step_bias
from mmrnn.types import ChecksKnobs, PositiveFloat, PositiveInt
from mmrnn_kernels import gated_delta_rule, kda

UNIT_EPS = 1e-6
"""Added to the square of a length before keys and queries are divided by it."""


class GatedDeltaNet(nn.Module, Mixer, ChecksKnobs):
    """Gated delta rule: short convolution of query, key and value, unit keys, decay and rate from the input, a gate.

    The state is the last inputs of the convolution and a matrix of keys by values for each head.

    Args:
        width: `d`.
        index: place among the layers of the kind.
        heads: of values, each with a matrix of its own.
        key_heads: of queries and keys, each shared by `heads / key_heads` heads; None: `heads`.
        key_size: channels of a query and a key.
        value_size: channels of a value; None: `key_size`.
        kernel: positions that the convolution sums.
        decay_per: one decay a head (Gated DeltaNet), or one a key channel from a projection of rank `key_size` (KDA).
        gate: activation of the output gate.
        eps: of the norm of each head.
        backend: implementation of the delta rule.

    Raises:
        ValueError: `heads` is no multiple of `key_heads`.
    """

    recurrent = True

    def __init__(
        self,
        width: int,
        index: int = 0,
        *,
        heads: PositiveInt = 16,
        key_heads: PositiveInt | None = None,
        key_size: PositiveInt = 128,
        value_size: PositiveInt | None = None,
        kernel: PositiveInt = 4,
        decay_per: Literal["head", "channel"] = "head",
        gate: Literal["silu", "sigmoid"] = "silu",
        eps: PositiveFloat = 1e-6,
        backend: Backend = "auto",
    ):
        super().__init__()
        for _, fault in self.knob_faults({"heads": heads, "key_heads": key_heads}):
            raise ValueError(fault)
        value_size = value_size or key_size
        self.heads, self.key_heads, self.key_size, self.value_size = heads, key_heads or heads, key_size, value_size
        self.backend, self.per_channel = backend, decay_per == "channel"
        keys, values = self.key_heads * key_size, heads * value_size
        self.query = Linear(width, keys, bias=False)
        self.key = Linear(width, keys, bias=False)
        self.value = Linear(width, values, bias=False)
        self.gate = Linear(width, values, bias=False)
        self.rate = Linear(width, heads, bias=False)
        self.conv = ShortConvolution(2 * keys + values, kernel)
        decays = heads * key_size if self.per_channel else heads
        self.decay_down = Linear(width, key_size, bias=False) if self.per_channel else None
        self.decay = Linear(key_size if self.per_channel else width, decays, bias=False)
        self.decay_bias = nn.Parameter(torch.zeros(decays))
        self.decay_log = nn.Parameter(torch.zeros(heads))
        self.norm = GatedRMSNorm(value_size, eps, sigmoid=gate == "sigmoid")
        self.output = Linear(values, width, bias=False)

    def reset(self) -> None:
        """Initialise parameters in place, as one of a single block."""
        self.reset_parameters(0, 1)

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield heads that keys cannot be shared among. See `ChecksKnobs`."""
        if knobs["key_heads"] is not None and knobs["heads"] % knobs["key_heads"]:
            yield "heads", f"heads ({knobs['heads']}) must be a multiple of key_heads ({knobs['key_heads']})"

    def state(self, batch: int) -> dict[str, Tensor]:
        """Return zeros: `conv`, the last inputs of the convolution, and `delta`, `b h k v`."""
        last = self.conv.state(batch)
        dtype = torch.promote_types(last.dtype, torch.float32)
        return {"conv": last, "delta": last.new_zeros(batch, self.heads, self.key_size, self.value_size, dtype=dtype)}

    def log_decay(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t h *k"]:
        """Return the logarithm of the decay, `b t h`, or `b t h k` for one a channel."""
        down = x if self.decay_down is None else self.decay_down(x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        step = F.softplus(self.decay(down).to(dtype) + self.decay_bias.to(dtype))
        scale = -self.decay_log.to(dtype).exp()
        return step.unflatten(-1, (self.heads, -1)) * scale[:, None] if self.per_channel else step * scale

    def forward(
        self, x: Float[Tensor, "b t d"], state: Mapping[str, Tensor], inputs: MixerInputs, shared: Shared = ()
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor], Shared]:
        """Return the output, the state after the last position, and `shared` as it came."""
        bounds = inputs.bounds
        joined = torch.cat([self.query(x), self.key(x), self.value(x)], dim=-1)
        joined, conv = self.conv(joined, state["conv"], None if bounds is None else bounds.starts)
        keys = self.key_heads * self.key_size
        q, k, v = F.silu(joined).split([keys, keys, self.heads * self.value_size], dim=-1)
        copies = self.heads // self.key_heads
        q, k = (unit(y.unflatten(-1, (self.key_heads, -1))).repeat_interleave(copies, dim=2) for y in (q, k))
        v = v.unflatten(-1, (self.heads, -1))
        tensors = q * self.key_size**-0.5, k, v, self.log_decay(x), torch.sigmoid(self.rate(x))
        op = kda if self.per_channel else gated_delta_rule
        out, delta = run_wkv(op, tensors, (), state["delta"], bounds, self.backend)
        out = self.norm(out, self.gate(x).unflatten(-1, (self.heads, -1)))
        return self.output(out.flatten(2)), {"conv": conv, "delta": delta}, shared

    @torch.no_grad()
    def reset_parameters(self, layer: int, depth: int) -> None:
        """Initialise: matrices by N(0, 0.02), the last one smaller in deep models; decays as in Mamba-2 and the paper.

        The factor of a step of the decay is uniform in [1, 16].
        """
        for name, part in self.named_children():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02 / (2 * depth) ** 0.5 if name == "output" else 0.02)
        self.conv.reset_parameters()
        self.norm.reset_parameters()
        init_step_bias(self.decay_bias)
        self.decay_log.uniform_(1, 16).log_()


def unit(x: Float[Tensor, "b t h k"]) -> Float[Tensor, "b t h k"]:
    """Return vectors of unit length, in fp32."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + UNIT_EPS)
