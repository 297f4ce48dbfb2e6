"""Mamba: blocks of a short convolution and a selective state space, without attention and without an MLP."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones.packed_rows import SegmentBounds, run_wkv
from mmrnn.backbones.rwkv import Backend, reorder
from mmrnn.backbones.scan import scan_permutations
from mmrnn.layers.linear import Linear
from mmrnn.layers.recompute import run_block
from mmrnn.layers.short_conv import ShortConvolution
from mmrnn.layers.step_size import init_step_bias
from mmrnn.types import (
    Backbone,
    BlockHooks,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Resettable,
    Scan,
    Sequence,
    State,
    StateOrigin,
    reset_layers,
)
from mmrnn_kernels import selective_scan


class MambaMixer(nn.Module, Resettable):
    """Selective state space: convolution and SiLU, step size and reads and writes from the input, the scan, a gate.

    arXiv 2312.00752, section 3.

    Args:
        width: `d`.
        inner: channels of the scan, `c`.
        state_size: states of a channel.
        rank: of the step size.
        kernel: positions that the convolution sums.
        backend: implementation of the scan.
    """

    def __init__(self, width: int, inner: int, state_size: int, rank: int, kernel: int, backend: str):
        super().__init__()
        self.inner, self.state_size, self.rank, self.backend = inner, state_size, rank, backend
        self.input = Linear(width, inner, bias=False)
        self.gate = Linear(width, inner, bias=False)
        self.conv = ShortConvolution(inner, kernel, bias=True)
        self.selection = Linear(inner, rank + 2 * state_size, bias=False)
        self.step = Linear(rank, inner)
        self.rate_log = nn.Parameter(torch.zeros(inner, state_size))
        self.skip = nn.Parameter(torch.ones(inner))
        self.output = Linear(inner, width, bias=False)

    def reset(self) -> None:
        """Initialise in place as the mixer of a model of one block."""
        reset_layers(self)
        self.reset_parameters(1)

    def state(self, batch: int) -> dict[str, Tensor]:
        """Return the initial state: no inputs of the convolution yet, and states of zero."""
        dtype = torch.promote_types(self.rate_log.dtype, torch.float32)
        return {
            "conv": self.conv.state(batch),
            "ssm": self.rate_log.new_zeros(batch, self.inner, self.state_size, dtype=dtype),
        }

    def forward(
        self, x: Float[Tensor, "b t d"], state: dict[str, Tensor], bounds: SegmentBounds | None = None
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        """Return the output, and the state after the last position."""
        starts = None if bounds is None else bounds.starts
        u, last = self.conv(self.input(x), state["conv"], starts)
        u = F.silu(u)
        rank, write, read = self.selection(u).split([self.rank, self.state_size, self.state_size], dim=-1)
        # In fp32: rounded step sizes would be an error of every decay.
        dtype = torch.promote_types(self.rate_log.dtype, torch.float32)
        step = F.softplus(self.step(rank).to(dtype))
        timed, rates = (u, step, write, read), -torch.exp(self.rate_log.to(dtype))
        out, ssm = run_wkv(scan_timed_first, timed, (rates,), state["ssm"], bounds, self.backend)
        out = (out + self.skip.to(u.dtype) * u) * F.silu(self.gate(x))
        return self.output(out), {"conv": last, "ssm": ssm}

    @torch.no_grad()
    def reset_parameters(self, depth: int) -> None:
        """Initialise as published (state-spaces/mamba): rates 1 to s, step sizes from 0.001 to 0.1."""
        rates = torch.arange(1, self.state_size + 1, device=self.rate_log.device)
        self.rate_log.copy_(rates.log().expand_as(self.rate_log))
        nn.init.ones_(self.skip)
        nn.init.uniform_(self.step.weight, -(self.rank**-0.5), self.rank**-0.5)
        init_step_bias(self.step.bias)
        nn.init.kaiming_uniform_(self.output.weight, a=5**0.5)
        self.output.weight.div_(depth**0.5)


def scan_timed_first(x: Tensor, step: Tensor, write: Tensor, read: Tensor, rates: Tensor, state: Tensor, **options):
    """Call `selective_scan` with the inputs that run over time in front."""
    return selective_scan(x, step, rates, write, read, state, **options)


class MambaBlock(nn.Module):
    """Mamba block: x + mixer(norm(x))."""

    def __init__(self, width: int, mixer: MambaMixer, eps: float, dropout: float):
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=eps)
        self.mixer = mixer
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b t d"], state: dict[str, Tensor], bounds: SegmentBounds | None = None
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        """Return the output, and the state after the last position."""
        mixed, state = self.mixer(self.norm(x), state, bounds)
        return x + self.dropout(mixed), state


class Mamba(nn.Module, Backbone):
    """Mamba language model (Gu and Dao 2023, arXiv 2312.00752).

    Args:
        vocab: rows of the embedding and of the head.
        width: model dimension `d`.
        depth: number of blocks.
        expand: channels of the scan, as a multiple of `width`.
        state_size: states of a channel.
        rank: of the step size; None: width / 16, rounded up.
        kernel: positions that the convolution sums.
        eps: of the RMS norms.
        tie_embeddings: the head shares the weights of the embedding.
        dropout: of the branch of each block.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none.
        backend: implementation of the selective scan.
    """

    recurrent = True
    hooks = ("layer",)

    def __init__(
        self,
        *,
        vocab: PositiveInt = 50280,
        width: PositiveInt = 2560,
        depth: PositiveInt = 64,
        expand: PositiveInt = 2,
        state_size: PositiveInt = 16,
        rank: PositiveInt | None = None,
        kernel: PositiveInt = 4,
        eps: PositiveFloat = 1e-5,
        tie_embeddings: bool = True,
        dropout: Fraction = 0.0,
        grad_checkpointing: NonNegativeInt = 0,
        backend: Backend = "auto",
    ):
        super().__init__()
        self.vocab, self.width, self.depth, self.grad_checkpointing = vocab, width, depth, grad_checkpointing
        inner = expand * width
        mixer = partial(MambaMixer, width, inner, state_size, rank or -(-width // 16), kernel, backend)
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(MambaBlock(width, mixer(), eps, dropout) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=eps)
        self.output = None if tie_embeddings else Linear(width, vocab, bias=False)
        sizes = {"depth": depth, "width": width, "inner": inner, "state_size": state_size, "kernel": kernel}
        self.state_origin = StateOrigin("mamba", sizes)
        self.reset_parameters()

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as published (state-spaces/mamba); other layers keep the initialisation of torch."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        for block in self.blocks:
            block.mixer.reset_parameters(self.depth)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed token ids."""
        return self.embedding(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Return the logits of hidden states."""
        return F.linear(hidden, self.embedding.weight) if self.output is None else self.output(hidden)

    def state(self, batch: int) -> State:
        """Return the initial state: zeros."""
        return State(tuple(block.mixer.state(batch) for block in self.blocks), origin=self.state_origin)

    def forward(
        self, sequence: Sequence, state: State | None = None, scan: Scan | None = None, hook: BlockHooks | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Run the blocks over a sequence, continuing from `state`.

        Returns:
            The hidden states after the last norm, and the state after the last position.
        """
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.resume(state, len(x))
        bounds = SegmentBounds.of(sequence.segments, state.shared.get("segment"))
        hook, layers = hook or BlockHooks(), []
        permutations = scan_permutations(scan, self.depth, sequence)
        for layer, (block, old, order) in enumerate(zip(self.blocks, state.layers, permutations, strict=True)):
            x = hook.before(layer, x)
            x = x if order is None else reorder(x, order)
            x, new = run_block(block, layer, self.grad_checkpointing, x, old, bounds)
            x = x if order is None else reorder(x, order.argsort(dim=1))
            x = hook.after(layer, x)
            layers.append(new)
        common = state.shared if sequence.segments is None else {"segment": sequence.segments[:, -1].clone()}
        return self.norm(x), State(tuple(layers), common, self.state_origin)
