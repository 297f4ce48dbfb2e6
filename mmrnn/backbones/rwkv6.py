"""RWKV-6 (Finch): data-dependent token shift and decay."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.backbones.packed_rows import SegmentBounds, run_lerp, run_wkv
from mmrnn.backbones.rwkv import RWKV, Backend, Block, ChannelMix
from mmrnn.backbones.rwkv_init import channel_ramp, default_ffn, default_heads, init_time_mix
from mmrnn.layers.linear import Linear
from mmrnn.types import Fraction, NonNegativeInt, PositiveInt
from mmrnn_kernels import norm_gate, wkv6


class TimeMix6(nn.Module):
    """Time mix of RWKV-6: data-dependent token shift into w, k, v, r, g; WKV; group norm; gate.

    arXiv 2404.05892, section 4.2. The learned shift weights are those of the previous token.
    """

    def __init__(self, width: int, heads: int, head_size: int, mix_rank: int, decay_rank: int, backend: str):
        super().__init__()
        inner = heads * head_size
        self.heads, self.head_size, self.backend = heads, head_size, backend
        for name in ("x", "w", "k", "v", "r", "g"):
            self.register_parameter(f"lerp_{name}", nn.Parameter(torch.zeros(width)))
        self.lerp_down = nn.Parameter(torch.zeros(width, 5 * mix_rank))
        self.lerp_up = nn.Parameter(torch.zeros(5, mix_rank, width))
        self.decay = nn.Parameter(torch.zeros(inner))
        self.decay_down = nn.Parameter(torch.zeros(width, decay_rank))
        self.decay_up = nn.Parameter(torch.zeros(decay_rank, inner))
        self.bonus = nn.Parameter(torch.zeros(heads, head_size))
        self.receptance = Linear(width, inner, bias=False)
        self.key = Linear(width, inner, bias=False)
        self.value = Linear(width, inner, bias=False)
        self.gate = Linear(width, inner, bias=False)
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
        w, k, v, r, g = self.ddlerp(x, previous, bounds)
        decay = self.decay + torch.tanh(w @ self.decay_down) @ self.decay_up
        split = (b, t, self.heads, self.head_size)
        tensors = (self.receptance(r), self.key(k), self.value(v), decay)
        out, state = run_wkv(wkv6, tuple(y.view(split) for y in tensors), (self.bonus,), state, bounds, self.backend)
        norm = self.norm
        out = norm_gate(out, self.gate(g), norm.weight, norm.bias, norm.eps, backend=self.backend)
        return self.output(out), state

    def ddlerp(
        self, x: Float[Tensor, "b t d"], previous: Float[Tensor, "b d"], bounds: SegmentBounds | None
    ) -> list[Float[Tensor, "b t d"]]:
        """Return the data-dependent mixtures of each token and the one before it: w, k, v, r, g."""
        b, t, d = x.shape
        (mixture,) = run_lerp(x, previous, self.lerp_x[None], None, bounds, self.backend)
        low = torch.tanh(mixture @ self.lerp_down).view(b * t, 5, -1)
        offsets = (low.transpose(0, 1) @ self.lerp_up).view(5, b, t, d)
        weights = torch.stack([self.lerp_w, self.lerp_k, self.lerp_v, self.lerp_r, self.lerp_g])
        return run_lerp(x, previous, weights, offsets, bounds, self.backend)

    @torch.no_grad()
    def reset_parameters(self, layer: int, depth: int) -> None:
        """Initialise as published (RWKV-LM since April 2024)."""
        rise, fall = layer / max(depth - 1, 1), 1 - layer / depth
        channel = channel_ramp(self.lerp_x)
        for name in ("x", "w", "k"):
            getattr(self, f"lerp_{name}").copy_(1 - channel**fall)
        self.lerp_v.copy_(1 - (channel**fall + 0.3 * rise))
        self.lerp_r.copy_(1 - channel ** (0.5 * fall))
        self.lerp_g.copy_(1 - channel ** (0.5 * fall))
        nn.init.zeros_(self.lerp_down)
        nn.init.uniform_(self.lerp_up, -0.01, 0.01)
        nn.init.zeros_(self.decay_down)
        nn.init.uniform_(self.decay_up, -0.01, 0.01)
        init_time_mix(self, layer, depth)


class RWKV6(RWKV):
    """RWKV-6 language model (Finch, arXiv 2404.05892).

    Args:
        vocab: rows of the embedding and of the head; 0: the blocks alone.
        width: model dimension `d`.
        depth: number of blocks.
        head_size: rows and columns of the WKV matrix of a head.
        heads: None: width / head_size.
        ffn: width of the channel mix; None: 3.5 x width, a multiple of 32.
        mix_rank: rank of the data-dependent token shift; None: 32, from width 4096 on 64.
        decay_rank: rank of the data-dependent decay; None: 64, from width 4096 on 128.
        dropout: of both branches of each block.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none.
        learned_state: start from learned WKV matrices instead of zero (state tuning).
        backend: implementation of the WKV operator and of the elementwise operators.

    Raises:
        ValueError: `heads` is None and `width` is no multiple of `head_size`.
    """

    kind = "rwkv6"
    native = Block, TimeMix6, ChannelMix

    def __init__(
        self,
        *,
        vocab: NonNegativeInt = 65536,
        width: PositiveInt = 768,
        depth: PositiveInt = 12,
        head_size: PositiveInt = 64,
        heads: PositiveInt | None = None,
        ffn: PositiveInt | None = None,
        mix_rank: PositiveInt | None = None,
        decay_rank: PositiveInt | None = None,
        dropout: Fraction = 0.0,
        grad_checkpointing: NonNegativeInt = 0,
        learned_state: bool = False,
        backend: Backend = "auto",
    ):
        heads = default_heads(width, heads, head_size)
        mix_rank = mix_rank or (32 if width < 4096 else 64)
        decay_rank = decay_rank or (64 if width < 4096 else 128)
        super().__init__(
            lambda _: TimeMix6(width, heads, head_size, mix_rank, decay_rank, backend),
            lambda _: ChannelMix(width, ffn or default_ffn(width), backend),
            vocab=vocab,
            width=width,
            depth=depth,
            dropout=dropout,
            grad_checkpointing=grad_checkpointing,
            learned_state=learned_state,
        )
