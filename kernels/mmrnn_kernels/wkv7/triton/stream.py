"""The operator position by position: the launches of `recurrent.py` and `gradient.py`."""

import torch
from torch import Tensor

from ...wkv6.triton.sequences import Sequences
from . import plan
from .gradient import gradient_kernel
from .recurrent import recurrent_kernel, reverse_kernel


def run(sequences: Sequences, mode, inputs: list[Tensor], start, out, met, end, states) -> None:
    """The outputs and the final states, or the states in between and what each position meets."""
    wide = min(32, sequences.value)
    recurrent_kernel[(sequences.programs, sequences.value // wide)](
        *(*inputs, start, out, met, end, states, sequences.bounds, sequences.length),
        **sequences.shared | {"BV": wide, "EVERY": plan.CHUNK, "START": start is not None},
        **{"STATES": states is not None, **mode.options},
    )


def backward(sequences: Sequences, mode, inputs: list[Tensor], start, dout, dend) -> tuple[list[Tensor], Tensor]:
    """Gradients of the inputs and of the first states."""
    r, w, k, v, a, b = inputs
    grads = [torch.empty_like(x) for x in inputs]
    dr, dw, dk, dv, da, db = grads
    met, dmet = (torch.empty_like(v, dtype=torch.float32) for _ in range(2))
    states, dstart = sequences.states(r, sequences.slots(plan.CHUNK)), sequences.states(r)
    run(sequences, mode, inputs, start, None, met, None, states)
    wide = min(32, sequences.value)
    reverse_kernel[(sequences.programs, sequences.value // wide)](
        *(r, w, k, dout, a, b, dend, dv, dmet, dstart, sequences.bounds, sequences.length),
        **sequences.shared | {"BV": wide, "END": dend is not None},
        **mode.options,
    )
    wide = plan.rows(sequences.value)
    gradient_kernel[(sequences.programs, sequences.key // wide)](
        *(*inputs, met, dmet, dout, dend, states, dr, dw, dk, da, db, sequences.bounds, sequences.length),
        **sequences.shared | {"BK": wide, "C": plan.KEPT, "EVERY": plan.CHUNK, "END": dend is not None},
        **mode.options,
    )
    return grads, dstart
