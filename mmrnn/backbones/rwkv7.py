"""RWKV-7 (Goose): matrix state updated by the generalised delta rule."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones.packed_rows import SegmentBounds, run_lerp, run_wkv
from mmrnn.backbones.rwkv import RWKV, Backend
from mmrnn.backbones.rwkv_init import channel_ramp, default_heads
from mmrnn.layers.linear import Linear
from mmrnn.types import Fraction, NonNegativeInt, PositiveInt
from mmrnn_kernels import relu_square, wkv7

MIXTURES = ("r", "w", "k", "v", "a", "g")


class TimeMix7(nn.Module):
    """Time mix of RWKV-7: static token shift into r, w, k, v, a, g; WKV with removal; group norm; bonus; gate.

    arXiv 2503.14456, section 4. The learned shift weights are those of the previous token.

    Args:
        residual_rank: rank of the interpolation with the values of the first layer; None: this is the first layer.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_size: int,
        decay_rank: int,
        rate_rank: int,
        residual_rank: int | None,
        gate_rank: int,
        backend: str,
    ):
        super().__init__()
        inner = heads * head_size
        self.heads, self.head_size, self.backend = heads, head_size, backend
        for name in MIXTURES:
            self.register_parameter(f"lerp_{name}", nn.Parameter(torch.zeros(width)))
        self.decay = nn.Parameter(torch.zeros(inner))
        self.decay_down = nn.Parameter(torch.zeros(width, decay_rank))
        self.decay_up = nn.Parameter(torch.zeros(decay_rank, inner))
        self.rate = nn.Parameter(torch.zeros(inner))
        self.rate_down = nn.Parameter(torch.zeros(width, rate_rank))
        self.rate_up = nn.Parameter(torch.zeros(rate_rank, inner))
        self.first_layer = residual_rank is None
        if not self.first_layer:
            self.residual = nn.Parameter(torch.zeros(inner))
            self.residual_down = nn.Parameter(torch.zeros(width, residual_rank))
            self.residual_up = nn.Parameter(torch.zeros(residual_rank, inner))
        self.gate_down = nn.Parameter(torch.zeros(width, gate_rank))
        self.gate_up = nn.Parameter(torch.zeros(gate_rank, inner))
        self.removal = nn.Parameter(torch.zeros(inner))  # scale of the removal key
        self.replacement = nn.Parameter(torch.zeros(inner))  # how far the rate scales the replacement key
        self.bonus = nn.Parameter(torch.zeros(heads, head_size))
        self.receptance = Linear(width, inner, bias=False)
        self.key = Linear(width, inner, bias=False)
        self.value = Linear(width, inner, bias=False)
        self.output = Linear(inner, width, bias=False)
        self.norm = nn.GroupNorm(heads, inner, eps=64e-5)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        previous: Float[Tensor, "b d"],
        state: Float[Tensor, "b h k v"],
        bounds: SegmentBounds | None,
        first_values: Float[Tensor, "b t c"] | None = None,
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b h k v"], Float[Tensor, "b t c"]]:
        """Return the output, the WKV state and the values of the first layer.

        Args:
            previous: token before the first one.
            first_values: values of the first layer; None: this is the first layer.
        """
        b, t, _ = x.shape
        weights = torch.stack([getattr(self, f"lerp_{name}") for name in MIXTURES])
        r, w, k, v_in, a, g = run_lerp(x, previous, weights, None, bounds, self.backend)
        r, k, v = self.receptance(r), self.key(k), self.value(v_in)
        # The decay exp(-exp(w)) is exp(-sigmoid(...) / sqrt(e)), at least 0.545.
        w = F.logsigmoid(self.decay + torch.tanh(w @ self.decay_down) @ self.decay_up) - 0.5
        rate = torch.sigmoid(self.rate + a @ self.rate_down @ self.rate_up)
        gate = torch.sigmoid(g @ self.gate_down) @ self.gate_up
        if first_values is None:
            first_values = v
        else:
            v = v + (first_values - v) * torch.sigmoid(self.residual + v_in @ self.residual_down @ self.residual_up)

        split = (b, t, self.heads, self.head_size)
        kappa = F.normalize((k * self.removal).view(split), dim=-1)
        k = k * (1 + (rate - 1) * self.replacement)
        r, w, k, v, rate = (y.view(split) for y in (r, w, k, v, rate))
        out, state = run_wkv(wkv7, (r, w, k, v, -kappa, kappa * rate), (), state, bounds, self.backend)
        out = self.norm(out.reshape(b * t, -1)).view(split)
        out = out + (r * k * self.bonus).sum(-1, keepdim=True) * v
        return self.output(out.reshape(b, t, -1) * gate), state, first_values

    @torch.no_grad()
    def reset_parameters(self, layer: int, depth: int) -> None:
        """Initialise as published (RWKV-LM)."""
        rise, fall = layer / max(depth - 1, 1), 1 - layer / depth
        channel = channel_ramp(self.lerp_r)
        for name, power in {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}.items():
            getattr(self, f"lerp_{name}").copy_(1 - channel ** (power * fall))
        index = torch.arange(len(self.decay), device=self.decay.device, dtype=self.decay.dtype)
        fraction = index / max(len(self.decay) - 1, 1)  # 0 to 1 over all channels
        within_head = 2 * (index % self.head_size) / max(self.head_size - 1, 1) - 1  # -1 to 1 over those of a head
        curve = within_head * within_head.abs()
        self.decay.copy_(-5.5 + 6 * fraction ** (1 + rise**0.3) + 2.5 * curve)
        self.rate.copy_(-0.19 + 0.3 * curve + 0.4 * (fraction - 0.5))
        self.removal.copy_(0.71 - 0.1 * (fraction - 0.5))
        self.replacement.fill_(1.02)
        self.bonus.fill_(-0.04)
        low_rank = ["decay", "rate", "gate"]
        if not self.first_layer:
            self.residual.copy_(0.73 - 0.4 * (fraction - 0.5))
            low_rank.append("residual")
        for name in low_rank:
            up = getattr(self, f"{name}_up")
            nn.init.zeros_(getattr(self, f"{name}_down"))
            nn.init.orthogonal_(up, gain=0.1 * max(1, up.shape[0] / up.shape[1]) ** 0.5)
        nn.init.orthogonal_(self.receptance.weight)
        nn.init.orthogonal_(self.key.weight, gain=0.1)
        nn.init.orthogonal_(self.value.weight)
        nn.init.zeros_(self.output.weight)
        self.norm.weight.fill_(((1 + layer) / depth) ** 0.7)


class ChannelMix7(nn.Module):
    """Channel mix of RWKV-7: value(relu(key)^2), with a static token shift and no gate.

    arXiv 2503.14456, section 4. The learned weight is that of the previous token.
    """

    def __init__(self, width: int, ffn: int, backend: str = "auto"):
        super().__init__()
        self.backend = backend
        self.lerp_k = nn.Parameter(torch.zeros(width))
        self.key = Linear(width, ffn, bias=False)
        self.value = Linear(ffn, width, bias=False)

    def forward(
        self, x: Float[Tensor, "b t d"], previous: Float[Tensor, "b *t d"], bounds: SegmentBounds | None = None
    ) -> Float[Tensor, "b t d"]:
        """Mix the channels; `previous` is the token before the first one, or before every one."""
        (mixture,) = run_lerp(x, previous, self.lerp_k[None], None, bounds, self.backend)
        return self.value(relu_square(self.key(mixture), backend=self.backend))

    @torch.no_grad()
    def reset_parameters(self, layer: int, depth: int) -> None:
        """Initialise as published (RWKV-LM)."""
        self.lerp_k.copy_(1 - channel_ramp(self.lerp_k) ** ((1 - layer / depth) ** 4))
        nn.init.orthogonal_(self.key.weight)
        nn.init.zeros_(self.value.weight)


class RWKV7(RWKV):
    """RWKV-7 language model (Goose, arXiv 2503.14456).

    Args:
        vocab: rows of the embedding and of the head; 0: the blocks alone.
        width: model dimension `d`.
        depth: number of blocks.
        head_size: rows and columns of the WKV matrix of a head.
        heads: None: width / head_size.
        ffn: width of the channel mix; None: 4 x width.
        decay_rank: rank of the data-dependent decay; None: 1.8 x sqrt(width), the nearest multiple of 32.
        rate_rank: rank of the in-context learning rate; None: 1.8 x sqrt(width), likewise.
        residual_rank: rank of the interpolation with the values of the first layer; None: 1.3 x sqrt(width), likewise.
        gate_rank: rank of the gate; None: 0.6 x width^0.8, likewise.
        dropout: of both branches of each block.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none.
        learned_state: start from learned WKV matrices instead of zero (state tuning).
        backend: implementation of the WKV operator and of the elementwise operators.

    Raises:
        ValueError: `heads` is None and `width` is no multiple of `head_size`.
    """

    kind = "rwkv7"

    def __init__(
        self,
        *,
        vocab: NonNegativeInt = 65536,
        width: PositiveInt = 768,
        depth: PositiveInt = 12,
        head_size: PositiveInt = 64,
        heads: PositiveInt | None = None,
        ffn: PositiveInt | None = None,
        decay_rank: PositiveInt | None = None,
        rate_rank: PositiveInt | None = None,
        residual_rank: PositiveInt | None = None,
        gate_rank: PositiveInt | None = None,
        dropout: Fraction = 0.0,
        grad_checkpointing: NonNegativeInt = 0,
        learned_state: bool = False,
        backend: Backend = "auto",
    ):
        heads = default_heads(width, heads, head_size)
        decay_rank = decay_rank or default_rank(1.8 * width**0.5)
        rate_rank = rate_rank or default_rank(1.8 * width**0.5)
        residual_rank = residual_rank or default_rank(1.3 * width**0.5)
        gate_rank = gate_rank or default_rank(0.6 * width**0.8)

        def time_mix(layer: int) -> TimeMix7:
            residual = None if layer == 0 else residual_rank
            return TimeMix7(width, heads, head_size, decay_rank, rate_rank, residual, gate_rank, backend)

        super().__init__(
            time_mix,
            lambda _: ChannelMix7(width, ffn or 4 * width, backend),
            vocab=vocab,
            width=width,
            depth=depth,
            dropout=dropout,
            grad_checkpointing=grad_checkpointing,
            learned_state=learned_state,
        )


def default_rank(size: float) -> int:
    """Return the multiple of 32 nearest to `size`, at least 32."""
    return max(32, round(size / 32) * 32)
