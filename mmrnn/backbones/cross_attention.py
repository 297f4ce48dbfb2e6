"""Gated cross-attention to pictures that stand beside the text (Flamingo, arXiv 2204.14198)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones.hook import Hook
from mmrnn.types import Backbone, Pass, Sequence, State


class GatedBlock(nn.Module):
    """x + tanh(gate) * attention(norm(x), picture), then x + tanh(gate) * mlp(x). Both gates begin at zero."""

    def __init__(self, width: int, media: int, heads: int, head_size: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * head_size, bias=False)
        self.pair = nn.Linear(media, 2 * heads * head_size, bias=False)  # keys, then values
        self.output = nn.Linear(heads * head_size, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )
        self.mlp_gate = nn.Parameter(torch.zeros(1))

    def forward(
        self, x: Float[Tensor, "b t d"], bank: Float[Tensor, "b s e"] | None, mask: Bool[Tensor, "b t s"] | None
    ) -> Float[Tensor, "b t d"]:
        if bank is not None:
            x = x + self.gate.tanh() * self.look(self.norm(x), bank, mask)
        return x + self.mlp_gate.tanh() * self.mlp(x)

    def look(
        self, x: Float[Tensor, "b t d"], bank: Float[Tensor, "b s e"], mask: Bool[Tensor, "b t s"]
    ) -> Float[Tensor, "b t d"]:
        key, value = self.pair(bank).chunk(2, dim=-1)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.query(x), key, value))
        seen = mask.any(-1, keepdim=True)
        # A row that may look nowhere looks everywhere, for a number to come out, and then counts nothing.
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=(mask | ~seen)[:, None])
        return self.output(out.transpose(1, 2).flatten(2) * seen)


class Looking(Pass):
    """The pictures of one sequence, and which of them each position may look at: the latest before it."""

    def __init__(self, blocks: nn.ModuleDict, sequence: Sequence, state: State | None):
        self.blocks = blocks
        shared = {} if state is None else state.shared
        self.bank, self.latest = _bank(sequence, shared.get("media"), shared.get("media_seen"))
        self.mask = None
        if self.bank is not None:
            pictures, size = self.bank.shape[1:3]
            which = torch.arange(pictures, device=self.latest.device).repeat_interleave(size)
            self.mask = self.latest[..., None] == which
            self.flat = self.bank.flatten(1, 2)

    def before(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        name = str(layer)
        if name not in self.blocks:
            return x
        return self.blocks[name](x, None if self.bank is None else self.flat.to(x.dtype), self.mask)

    @property
    def memory(self) -> dict[str, Tensor]:
        if self.bank is None:
            return {}
        last = self.latest[:, -1]
        rows = torch.arange(len(last), device=last.device)
        return {"media": self.bank[rows, last.clamp(min=0)], "media_seen": last >= 0}


class GatedCrossAttention(Hook):
    """Before every `every`-th block the text looks at its latest picture, which fills no slots (connector `Beside`).

    With both gates at zero the backbone is what it was. Text before the first picture looks at none.

    Args:
        every: 1 before each block; n before the blocks n, 2n, ... counted from one.
    """

    reads_beside = True

    def __init__(self, backbone: Backbone, media: int, *, every: int = 4, heads: int = 8, head_size: int = 64):
        super().__init__(backbone)
        depth = len(backbone.blocks)
        if not 1 <= every <= depth:
            raise ValueError(f"every ({every}) must lie between 1 and the depth of the backbone ({depth})")
        self.blocks = nn.ModuleDict(
            {
                str(layer): GatedBlock(backbone.width, media, heads, head_size)
                for layer in range(depth)
                if (layer + 1) % every == 0
            }
        )

    def begin(self, sequence: Sequence, state: State | None) -> Pass:
        return Looking(self.blocks, sequence, state)


def latest_picture(sequence: Sequence, carried: int = 0) -> Int[Tensor, "b t"]:
    """For every position the number, within its row, of the latest picture beside the text; -1 before the first one.

    Args:
        carried: so many pictures of the row (0 or 1) were read before this sequence. A picture does not reach into
            another segment.
    """
    b, t = sequence.ids.shape
    latest = torch.full((b, t), carried - 1, device=sequence.ids.device)
    count = [carried] * b
    for block in sorted((one for one in sequence.blocks if one.layout.beside), key=lambda one: one.start):
        reach = slice(block.start, t)
        here = torch.ones(t - block.start, dtype=torch.bool, device=latest.device)
        if sequence.segments is not None:
            row = sequence.segments[block.sample]
            here = row[reach] == row[block.start]
        latest[block.sample, reach] = torch.where(here, count[block.sample], -1)
        count[block.sample] += 1
    return latest


def _bank(
    sequence: Sequence, before: Tensor | None, seen: Tensor | None
) -> tuple[Float[Tensor, "b k v e"] | None, Int[Tensor, "b t"]]:
    """The pictures of each row, that of the state first, and for every position the one it looks at."""
    carried = int(before is not None)
    latest = latest_picture(sequence, carried)
    rows: list[list[Tensor]] = [[] if before is None else [before[row]] for row in range(len(latest))]
    order = [(block.start, index) for index, block in enumerate(sequence.blocks) if block.layout.beside]
    beside = [block for block in sequence.blocks if block.layout.beside]
    for index in sorted(range(len(order)), key=lambda i: order[i]):
        rows[beside[index].sample].append(sequence.media[index])
    most = max(map(len, rows))
    if not most:
        return None, latest
    if seen is not None:
        latest = torch.where((latest == 0) & ~seen[:, None], -1, latest)
    some = next(picture for row in rows for picture in row)
    bank = torch.stack([torch.stack([*row, *[torch.zeros_like(some)] * (most - len(row))]) for row in rows])
    return bank, latest
