"""Launches of the kernels, and the sizes of their blocks."""

import torch
from torch import Tensor

from ...common.triton.plan import CHUNK, RECOMPUTED, CompileMode
from ...common.triton.sequences import Sequences
from .kernels import backward_kernel, forward_kernel

TILE = 512
"""States of a block of channels in the forward kernel: 16 registers of one warp."""

BACKWARD_TILE = 256
"""States of a block in the backward kernel, which holds those of RECOMPUTED positions and three more."""

WARPS = 1
"""Warps of a program: what is read at a position is a sum over the states of a channel, within one warp."""


def block_grid(sequences: Sequences, states: int, tile: int) -> tuple[tuple[int, int], int]:
    """Return the grid for tiles of this many states, and the channels of a block."""
    width = tile // states
    return (sequences.count, -(-sequences.heads // width)), width


def forward(
    sequences: Sequences,
    mode: CompileMode,
    inputs: list[Tensor],
    start: Tensor | None,
    out: Tensor | None = None,
    end: Tensor | None = None,
    checkpoints: Tensor | None = None,
) -> None:
    """Fill `out` and `end`, or `checkpoints` with the states before every CHUNK positions."""
    channels, states = inputs[2].shape
    grid, width = block_grid(sequences, states, TILE)
    forward_kernel[grid](
        *(*inputs, start, out, end, checkpoints, sequences.cu_seqlens, sequences.length, channels),
        **{"S": states, "BD": width, "SPAN": CHUNK, "PACKED": sequences.cu_seqlens is not None},
        **{"HAS_START": start is not None, "STORE_STATES": checkpoints is not None},
        **{"num_warps": WARPS, **mode.all_registers},
    )


def backward(
    sequences: Sequences,
    mode: CompileMode,
    inputs: list[Tensor],
    start: Tensor | None,
    dout: Tensor,
    dend: Tensor | None,
) -> tuple[list[Tensor], Tensor]:
    """Compute the gradients of the inputs and of the initial states."""
    x, dt, a, b, _ = inputs
    channels, states = a.shape
    grid, width = block_grid(sequences, states, BACKWARD_TILE)
    checkpoints = a.new_empty(sequences.slots(CHUNK), channels, states)
    dx, ddt = torch.empty_like(x), torch.empty_like(dt)
    da, dstart = (a.new_empty(sequences.count, channels, states) for _ in range(2))
    db, dc = (a.new_empty(grid[1], *b.shape) for _ in range(2))
    forward(sequences, mode, inputs, start, checkpoints=checkpoints)
    backward_kernel[grid](
        *(*inputs, dout, dend, checkpoints, dx, ddt, da, db, dc, dstart),
        *(sequences.cu_seqlens, sequences.length, sequences.positions, channels),
        **{"S": states, "BD": width, "BT": RECOMPUTED, "SPAN": CHUNK, "PACKED": sequences.cu_seqlens is not None},
        **{"HAS_DEND": dend is not None, "num_warps": WARPS, **mode.all_registers},
    )
    return [dx, ddt, da.sum(0), db.sum(0), dc.sum(0)], dstart
