"""RWKV-5.2 (Eagle): matrix state with a constant decay per channel."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.backbones.packed_rows import SegmentBounds, run_lerp, run_wkv
from mmrnn.backbones.rwkv import RWKV, Backend, Block, ChannelMix
from mmrnn.backbones.rwkv_init import channel_ramp, default_ffn, default_heads, init_time_mix
from mmrnn.layers.linear import Linear
from mmrnn.types import Fraction, NonNegativeInt, PositiveInt
from mmrnn_kernels import norm_gate, wkv5


class TimeMix5(nn.Module):
    """Time mix of RWKV-5: static token shift into r, k, v, g; WKV with a constant decay; group norm; gate.

    arXiv 2404.05892, section 4.1. The learned shift weights are those of the current token.
    """

    def __init__(self, width: int, heads: int, head_size: int, gate: bool, backend: str):
        super().__init__()
        inner = heads * head_size
        self.heads, self.head_size, self.backend = heads, head_size, backend
        self.mixtures = ("r", "k", "v", "g") if gate else ("r", "k", "v")
        for name in self.mixtures:
            self.register_parameter(f"lerp_{name}", nn.Parameter(torch.zeros(width)))
        self.decay = nn.Parameter(torch.zeros(heads, head_size))
        self.bonus = nn.Parameter(torch.zeros(heads, head_size))
        self.receptance = Linear(width, inner, bias=False)
        self.key = Linear(width, inner, bias=False)
        self.value = Linear(width, inner, bias=False)
        self.gate = Linear(width, inner, bias=False) if gate else None
        self.output = Linear(inner, width, bias=False)
        # The divisor 8 that RWKV applies before the norm, squared into its epsilon.
        self.norm = nn.GroupNorm(heads, inner, eps=64e-5)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        previous: Float[Tensor, "b d"],
        state: Float[Tensor, "b h k v"],
        bounds: SegmentBounds | None,
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b h k v"]]:
        """Return the output and the WKV state; `previous` is the token before the first one."""
        b, t, _ = x.shape
        split = (b, t, self.heads, self.head_size)
        weights = 1 - torch.stack([getattr(self, f"lerp_{name}") for name in self.mixtures])  # of the previous
        r, k, v, *g = run_lerp(x, previous, weights, None, bounds, self.backend)
        tensors = tuple(y.view(split) for y in (self.receptance(r), self.key(k), self.value(v)))
        out, state = run_wkv(wkv5, tensors, (self.decay, self.bonus), state, bounds, self.backend)
        norm = self.norm
        if self.gate is None:
            out = norm(out.reshape(b * t, -1)).view(b, t, -1)
        else:
            out = norm_gate(out, self.gate(*g), norm.weight, norm.bias, norm.eps, backend=self.backend)
        return self.output(out), state

    @torch.no_grad()
    def reset_parameters(self, layer: int, depth: int) -> None:
        """Initialise as published (RWKV-LM since April 2024)."""
        rise, fall = layer / max(depth - 1, 1), 1 - layer / depth
        channel = channel_ramp(self.lerp_k)
        self.lerp_k.copy_(channel**fall)
        self.lerp_v.copy_(channel**fall + 0.3 * rise)
        self.lerp_r.copy_(channel ** (0.5 * fall))
        if self.gate is not None:
            self.lerp_g.copy_(channel ** (0.5 * fall))
        init_time_mix(self, layer, depth)


class ChannelMix5(ChannelMix):
    """Channel mix of RWKV-5: that of RWKV-6, but the learned shift weights are those of the current token."""

    def shift_weights(self) -> Float[Tensor, "n d"]:
        """Return the weights of the previous token, for key and receptance."""
        return 1 - super().shift_weights()

    @torch.no_grad()
    def reset_parameters(self, layer: int, depth: int) -> None:
        """Initialise as published (RWKV-LM since April 2024)."""
        super().reset_parameters(layer, depth)
        self.lerp_k.copy_(1 - self.lerp_k)
        self.lerp_r.copy_(1 - self.lerp_r)


class RWKV5(RWKV):
    """RWKV-5.2 language model (Eagle, arXiv 2404.05892).

    Args:
        vocab: rows of the embedding and of the head; 0: the blocks alone.
        width: model dimension `d`.
        depth: number of blocks.
        head_size: rows and columns of the WKV matrix of a head.
        heads: None: width / head_size.
        ffn: width of the channel mix; None: 3.5 x width, a multiple of 32.
        gate: RWKV-5.0 has none. (RWKV-5.0 and 5.1 have one decay and one bonus per head; loading expands them.)
        dropout: of both branches of each block.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none.
        learned_state: start from learned WKV matrices instead of zero (state tuning).
        backend: implementation of the WKV operator and of the elementwise operators.

    Raises:
        ValueError: `heads` is None and `width` is no multiple of `head_size`.
    """

    kind = "rwkv5"
    native = Block, TimeMix5, ChannelMix5

    def __init__(
        self,
        *,
        vocab: NonNegativeInt = 65536,
        width: PositiveInt = 768,
        depth: PositiveInt = 12,
        head_size: PositiveInt = 64,
        heads: PositiveInt | None = None,
        ffn: PositiveInt | None = None,
        gate: bool = True,
        dropout: Fraction = 0.0,
        grad_checkpointing: NonNegativeInt = 0,
        learned_state: bool = False,
        backend: Backend = "auto",
    ):
        heads = default_heads(width, heads, head_size)
        super().__init__(
            lambda _: TimeMix5(width, heads, head_size, gate, backend),
            lambda _: ChannelMix5(width, ffn or default_ffn(width), backend),
            vocab=vocab,
            width=width,
            depth=depth,
            dropout=dropout,
            grad_checkpointing=grad_checkpointing,
            learned_state=learned_state,
        )
