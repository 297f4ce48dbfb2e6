"""Softmax attention as a mixer: output gate, query and key norms, partial and three-axis rotary positions, window."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones.mixer import Mixer, MixerInputs, Shared
from mmrnn.layers.linear import Linear
from mmrnn.layers.norm import rms_norm
from mmrnn.layers.rotary import AXES, frequency_axes, rotary_angles, rotate
from mmrnn.types import ChecksKnobs, NonNegativeInt, PositiveFloat, PositiveInt, Probability


class GatedAttention(nn.Module, Mixer, ChecksKnobs):
    """Causal attention with grouped-query heads and rotary positions (Qwen3-Next, Qwen3.5, Qwen2.5-VL).

    The state is a KV cache.

    Args:
        width: `d`.
        index: place among the layers of the kind.
        heads: query heads.
        kv_heads: key and value heads; None: `heads`.
        head_size: channels of a head; None: width / heads.
        gated: a sigmoid of a projection of the input multiplies what the heads read.
        qk_norm: RMS norm of the queries and keys of each head.
        zero_centered: the factor of these norms is 1 + weight.
        bias: biases of query, key and value.
        rotary: share of the channels of a head that is rotated.
        rope_theta: base of the rotary frequencies.
        mrope_section: frequencies that turn with the time, the row and the column of a token; None: one position.
        mrope_interleaved: the axes take turns (Qwen3-VL), in place of one block of frequencies each (Qwen2-VL).
        window: positions that a query attends to, its own among them; None: all.
        eps: of the norms.

    Raises:
        ValueError: `heads` is no multiple of `kv_heads`, `width` none of `heads` and `head_size` is None, or the
            sections have more or fewer frequencies than are rotated.
    """

    recurrent = False

    def __init__(
        self,
        width: int,
        index: int = 0,
        *,
        heads: PositiveInt = 8,
        kv_heads: PositiveInt | None = 2,
        head_size: PositiveInt | None = 256,
        gated: bool = True,
        qk_norm: bool = True,
        zero_centered: bool = True,
        bias: bool = False,
        rotary: Probability = 0.25,
        rope_theta: PositiveFloat = 10000000.0,
        mrope_section: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] | None = (11, 11, 10),
        mrope_interleaved: bool = True,
        window: PositiveInt | None = None,
        eps: PositiveFloat = 1e-6,
    ):
        super().__init__()
        sizes = {"heads": heads, "kv_heads": kv_heads, "head_size": head_size}
        sizes |= {"mrope_section": mrope_section, "rotary": rotary}
        for _, fault in self.knob_faults(sizes):
            raise ValueError(fault)
        if head_size is None and width % heads:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads}), or set head_size")
        self.heads, self.kv_heads, self.head_size = heads, kv_heads or heads, head_size or width // heads
        self.window, self.rope_theta = window, rope_theta
        self.rotated = rotated_channels(self.head_size, rotary)
        self.axes = () if mrope_section is None else tuple(frequency_axes(mrope_section, mrope_interleaved))
        self.query = Linear(width, heads * self.head_size, bias=bias)
        self.gate = Linear(width, heads * self.head_size, bias=False) if gated else None
        self.key = Linear(width, self.kv_heads * self.head_size, bias=bias)
        self.value = Linear(width, self.kv_heads * self.head_size, bias=bias)
        self.query_norm = rms_norm(self.head_size, eps, zero_centered) if qk_norm else nn.Identity()
        self.key_norm = rms_norm(self.head_size, eps, zero_centered) if qk_norm else nn.Identity()
        self.output = Linear(heads * self.head_size, width, bias=False)

    def reset(self) -> None:
        """Initialise parameters in place, as those of a single block."""
        self.reset_parameters(0, 1)

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield sizes that do not divide, and sections that are not as many as what is rotated. See `ChecksKnobs`."""
        heads, kv_heads, size, section = (knobs[name] for name in ("heads", "kv_heads", "head_size", "mrope_section"))
        if kv_heads is not None and heads % kv_heads:
            yield "heads", f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})"
        if section is not None and size is not None and sum(section) != rotated_channels(size, knobs["rotary"]) // 2:
            half = rotated_channels(size, knobs["rotary"]) // 2
            yield "mrope_section", f"mrope_section {tuple(section)} must sum to the {half} frequencies that are rotated"

    @classmethod
    def position_axes(cls, *, mrope_section: Sequence[int] | None = (11, 11, 10), **_: Any) -> tuple[int, ...]:
        """Return one position id a token, or also three where the frequencies have axes."""
        return (1,) if mrope_section is None else (1, AXES)

    def state(self, batch: int) -> dict[str, Tensor]:
        """Return empty caches, `b h 0 k`."""
        empty = self.key.weight.new_zeros(batch, self.kv_heads, 0, self.head_size)
        return {"key": empty, "value": empty}

    def forward(
        self, x: Float[Tensor, "b t d"], state: Mapping[str, Tensor], inputs: MixerInputs, shared: Shared = ()
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor], Shared]:
        """Return the output, the cache with the keys and values of `x` appended, and `shared` as it came."""
        b, t, _ = x.shape
        q = self.query_norm(self.query(x).view(b, t, self.heads, -1)).transpose(1, 2)
        k = self.key_norm(self.key(x).view(b, t, self.kv_heads, -1)).transpose(1, 2)
        v = self.value(x).view(b, t, self.kv_heads, -1).transpose(1, 2)
        angle = rotary_angles(inputs.positions, self.rotated, self.rope_theta, self.axes)
        q, k = rotate(q, angle), rotate(k, angle)
        k, v = (torch.cat([state[name].to(y.dtype), y], dim=2) for name, y in (("key", k), ("value", v)))
        masked = {"is_causal": True} if inputs.mask is None and t > 1 else {"attn_mask": inputs.mask}
        out = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.heads != self.kv_heads, **masked)
        out = out.transpose(1, 2).flatten(2)
        if self.gate is not None:
            out = out * torch.sigmoid(self.gate(x))
        if self.window is not None and k.shape[2] >= self.window:
            first = k.shape[2] - self.window + 1
            k, v = k[:, :, first:].clone(), v[:, :, first:].clone()
        return self.output(out), {"key": k, "value": v}, shared

    @torch.no_grad()
    def reset_parameters(self, layer: int, depth: int) -> None:
        """Initialise: matrices by N(0, 0.02), the last one smaller in deep models (GPT-2)."""
        for name, part in self.named_children():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02 / (2 * depth) ** 0.5 if name == "output" else 0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)


def rotated_channels(size: int, rotary: float) -> int:
    """Return the channels of a head that are rotated, an even number."""
    return int(size * rotary) // 2 * 2
