"""Causal depthwise convolution over a few positions, in front of a recurrence."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class ShortConvolution(nn.Conv1d):
    """Causal depthwise convolution: each channel sums its own last inputs (Mamba, Gated DeltaNet, Kimi Linear).

    The last tap belongs to the current position. Its state is the last inputs before the position that follows, zero
    before the start, so that a sequence may be read in parts of any length.

    Args:
        channels: `c`, in and out.
        kernel: positions that are summed, the current one among them.
        bias: of each channel.
    """

    def __init__(self, channels: int, kernel: int = 4, *, bias: bool = False):
        super().__init__(channels, channels, kernel, groups=channels, bias=bias)
        self.channels, self.kernel = channels, kernel

    def state(self, batch: int) -> Float[Tensor, "b c last"]:
        """Return the inputs before the start: zeros."""
        return self.weight.new_zeros(batch, self.channels, self.kernel - 1)

    def forward(
        self, x: Float[Tensor, "b t c"], last: Float[Tensor, "b c last"], starts: Bool[Tensor, "b t"] | None = None
    ) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b c last"]]:
        """Return the sums, and the last inputs for the positions that follow.

        Args:
            last: inputs of the `kernel - 1` positions before the first one.
            starts: True at positions that no input before them reaches, the first of the segments of packed rows.
        """
        t = x.shape[1]
        inputs = torch.cat([last.to(x.dtype), x.mT], dim=2)  # b c last+t
        weight = self.weight.to(x.dtype)
        if starts is None:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            # Clones, because a view of the last positions would keep all positions in memory.
            return F.conv1d(inputs, weight, bias, groups=self.channels).mT, inputs[:, :, t:].clone()
        reach = since_start(starts, self.kernel)[:, None]  # b 1 t
        out = sum(
            torch.where(reach >= back, inputs[:, :, self.kernel - 1 - back :][:, :, :t], 0) * weight[:, :, -1 - back]
            for back in range(self.kernel)
        )
        out = out if self.bias is None else out + self.bias[:, None].to(x.dtype)
        # The input of `back` positions before the one that follows: it is lost where a segment began after it.
        backs = torch.arange(self.kernel - 1, 0, -1, device=x.device)
        kept = torch.where(reach[:, :, -1:] >= backs - 1, inputs[:, :, t:], 0)
        return out.mT, kept


def since_start(starts: Bool[Tensor, "b t"], cap: int) -> Int[Tensor, "b t"]:
    """Return the inputs before each position that belong to its segment, where those before the row count as `cap`."""
    steps = torch.arange(starts.shape[1], device=starts.device)
    begin = torch.where(starts, steps, -cap).cummax(dim=1).values
    return steps - begin
