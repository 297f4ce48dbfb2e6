"""Launches of the kernels that go chunk by chunk."""

import torch
from torch import Tensor

from ...common.triton.plan import CHUNK
from ...common.triton.sequences import Sequences
from . import plan
from .chunk_backward import chunk_backward_kernel
from .chunk_forward import chunk_forward_kernel


def constants(sequences: Sequences, mode: plan.CompileMode, backward: bool = False) -> dict[str, object]:
    """Return the constants and options that all launches have in common."""
    types = {"DOT_TYPE": mode.dot_type, "EXACT_TYPE": mode.exact_type, "TARGET": mode.target}
    options = {"num_warps": plan.warps(mode, backward), "num_stages": 1}
    return sequences.constants | {"BT": CHUNK, "LEVELS": CHUNK.bit_length() - 1} | types | options


def forward(
    sequences: Sequences, mode: plan.CompileMode, inputs, start, out, end, reads=None, states=None, reverse=False
) -> None:
    """Fill `out` and `end`; or `reads` with U and `states` with S before every chunk; or, in reverse, `out` with the
    gradient of v, `reads` with that of U and `end` with that of the initial states.
    """
    columns = plan.columns(sequences.value)
    chunk_forward_kernel[(sequences.programs, sequences.value // columns)](
        *(*inputs, start, out, reads, end, states, sequences.cu_seqlens, sequences.length),
        **constants(sequences, mode) | {"BV": columns, "HAS_START": start is not None},
        **{"STORE_STATES": states is not None, "REVERSE": reverse},
    )


def backward(sequences: Sequences, mode: plan.CompileMode, inputs, start, dout, dend) -> tuple[list[Tensor], Tensor]:
    """Compute the gradients of the inputs and of the initial states."""
    r, w, k, v, a, b = inputs
    grads = [torch.empty_like(x) for x in inputs]
    dr, dw, dk, dv, da, db = grads
    reads, dreads = (torch.empty_like(v, dtype=mode.state_dtype) for _ in range(2))
    states, dstart = sequences.empty_states(r, sequences.slots(CHUNK), mode.state_dtype), sequences.empty_states(r)
    forward(sequences, mode, inputs, start, None, None, reads, states)
    forward(sequences, mode, (r, w, k, dout, a, b), dend, dv, dstart, dreads, reverse=True)
    keys = plan.backward_keys(sequences.key)
    chunk_backward_kernel[(sequences.programs, sequences.key // keys)](
        *(*inputs, reads, dreads, dout, dend, states, dr, dw, dk, da, db, sequences.cu_seqlens, sequences.length),
        **constants(sequences, mode, backward=True) | {"BK": keys, "HAS_DEND": dend is not None},
    )
    return grads, dstart
