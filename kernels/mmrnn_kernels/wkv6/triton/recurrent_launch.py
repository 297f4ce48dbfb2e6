"""Launches of the kernels that go position by position."""

import torch
from torch import Tensor

from ...common.triton.plan import CHUNK, RECOMPUTED, CompileMode, recurrent_backward_keys
from ...common.triton.sequences import Sequences
from .recurrent_backward import recurrent_backward_kernel
from .recurrent_forward import recurrent_forward_kernel


def forward(
    sequences: Sequences, mode: CompileMode, r, k, v, w, u, start, out, end, checkpoints=None, reverse=False
) -> None:
    """Fill `out` and `end`, or `checkpoints` with S before every CHUNK positions.

    In reverse, with r and k exchanged and the gradient of y as v: the gradient of v, and of the initial states.
    """
    columns = min(32, sequences.value)
    recurrent_forward_kernel[(sequences.programs, sequences.value // columns)](
        *(r, k, v, w, u, start, out, end, checkpoints, sequences.cu_seqlens, sequences.length),
        **sequences.constants | {"BV": columns, "SPAN": CHUNK, "CONSTANT": w.dim() == 2},
        **{"HAS_START": start is not None, "STORE_STATES": checkpoints is not None, "REVERSE": reverse},
        **mode.recurrent_options,
    )


def backward(sequences: Sequences, mode: CompileMode, r, k, v, w, u, start, dout, dend) -> tuple[Tensor, ...]:
    """Compute the gradients of r, k, v, w, u and the initial states; those of u and of a constant w by sequence."""
    constant = w.dim() == 2
    dr, dk, dv, dstart = *(torch.empty_like(x) for x in (r, k, v)), sequences.empty_states(r)
    du = r.new_empty((sequences.count, *u.shape), dtype=torch.float32)
    dw = torch.empty_like(du if constant else w)
    checkpoints = sequences.empty_states(r, sequences.slots(CHUNK))
    forward(sequences, mode, None, k, v, w, u, start, None, None, checkpoints)
    forward(sequences, mode, k, r, dout, w, u, dend, dv, dstart, reverse=True)
    keys = recurrent_backward_keys(sequences.value)
    recurrent_backward_kernel[(sequences.programs, sequences.key // keys)](
        *(r, k, v, w, u, dout, dend, checkpoints, dr, dk, dw, du, sequences.cu_seqlens, sequences.length),
        **sequences.constants | {"BK": keys, "BT": RECOMPUTED, "SPAN": CHUNK, "CONSTANT": constant},
        **{"HAS_DEND": dend is not None},
        **mode.recurrent_options,
    )
    return dr, dk, dv, dw, du, dstart
