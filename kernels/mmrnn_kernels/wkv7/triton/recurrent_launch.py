"""Launches of the kernels that go position by position."""

import torch
from torch import Tensor

from ...common.triton.plan import CHUNK, RECOMPUTED, recurrent_backward_keys
from ...common.triton.sequences import Sequences
from .plan import CompileMode
from .recurrent_backward import recurrent_backward_kernel
from .recurrent_forward import recurrent_forward_kernel, recurrent_reverse_kernel


def forward(
    sequences: Sequences,
    mode: CompileMode,
    inputs: list[Tensor],
    start,
    out,
    end,
    reads=None,
    checkpoints=None,
) -> None:
    """Fill `out` and `end`, or `reads` with U and `checkpoints` with S before every CHUNK positions."""
    columns = min(32, sequences.value)
    recurrent_forward_kernel[(sequences.programs, sequences.value // columns)](
        *(*inputs, start, out, reads, end, checkpoints, sequences.cu_seqlens, sequences.length),
        **sequences.constants | {"BV": columns, "SPAN": CHUNK},
        **{"HAS_START": start is not None, "STORE_STATES": checkpoints is not None},
        **mode.recurrent_options,
    )


def backward(
    sequences: Sequences, mode: CompileMode, inputs: list[Tensor], start, dout, dend
) -> tuple[list[Tensor], Tensor]:
    """Compute the gradients of the inputs and of the initial states."""
    r, w, k, v, a, b = inputs
    grads = [torch.empty_like(x) for x in inputs]
    dr, dw, dk, dv, da, db = grads
    reads, dreads = (torch.empty_like(v, dtype=torch.float32) for _ in range(2))
    checkpoints, dstart = sequences.empty_states(r, sequences.slots(CHUNK)), sequences.empty_states(r)
    forward(sequences, mode, inputs, start, None, None, reads, checkpoints)
    columns = min(32, sequences.value)
    recurrent_reverse_kernel[(sequences.programs, sequences.value // columns)](
        *(r, w, k, dout, a, b, dend, dv, dreads, dstart, sequences.cu_seqlens, sequences.length),
        **sequences.constants | {"BV": columns, "HAS_DEND": dend is not None},
        **mode.recurrent_options,
    )
    keys = recurrent_backward_keys(sequences.value)
    recurrent_backward_kernel[(sequences.programs, sequences.key // keys)](
        *(*inputs, reads, dreads, dout, dend, checkpoints, dr, dw, dk, da, db),
        *(sequences.cu_seqlens, sequences.length),
        **sequences.constants | {"BK": keys, "BT": RECOMPUTED, "SPAN": CHUNK, "HAS_DEND": dend is not None},
        **mode.recurrent_options,
    )
    return grads, dstart
