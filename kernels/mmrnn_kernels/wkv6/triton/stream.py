"""The operator position by position: the launches of `recurrent.py` and `gradient.py`."""

import torch
from torch import Tensor

from . import plan
from .gradient import gradient_kernel
from .recurrent import recurrent_kernel
from .sequences import Sequences


def run(sequences: Sequences, mode, r, k, v, w, u, start, out, end, states=None, reverse=False) -> None:
    wide = min(32, sequences.value)
    recurrent_kernel[(sequences.programs, sequences.value // wide)](
        *(r, k, v, w, u, start, out, end, states, sequences.bounds, sequences.length),
        **sequences.shared | {"BV": wide, "EVERY": plan.CHUNK, "CONSTANT": w.dim() == 2, "START": start is not None},
        **{"STATES": states is not None, "REVERSE": reverse},
        **mode.options,
    )


def backward(sequences: Sequences, mode, r, k, v, w, u, start, dout, dend) -> tuple[Tensor, ...]:
    """Gradients of r, k, v, w, u and of the first states; those of w and u by sequence where they have no positions."""
    constant = w.dim() == 2
    dr, dk, dv, dstart = *(torch.empty_like(x) for x in (r, k, v)), sequences.states(r)
    du = r.new_empty((sequences.count, *u.shape), dtype=torch.float32)
    dw = torch.empty_like(du if constant else w)
    states = sequences.states(r, sequences.slots(plan.CHUNK))
    run(sequences, mode, None, k, v, w, u, start, None, None, states)
    run(sequences, mode, k, r, dout, w, u, dend, dv, dstart, reverse=True)
    wide = plan.rows(sequences.value)
    gradient_kernel[(sequences.programs, sequences.key // wide)](
        *(r, k, v, w, u, dout, dend, states, dr, dk, dw, du, sequences.bounds, sequences.length),
        **sequences.shared
        | {"BK": wide, "C": plan.KEPT, "EVERY": plan.CHUNK, "CONSTANT": constant, "END": dend is not None},
        **mode.options,
    )
    return dr, dk, dv, dw, du, dstart
