"""The operator chunk by chunk: the launches of `forward.py` and `backward.py`."""

import torch
from torch import Tensor

from ...wkv6.triton.sequences import Sequences
from . import plan
from .backward import backward_kernel
from .forward import forward_kernel


def shared(sequences: Sequences, mode: plan.Mode, backward: bool = False) -> dict[str, object]:
    """What all launches are compiled for."""
    known = {"C": plan.CHUNK, "LEVELS": plan.CHUNK.bit_length() - 1, "PREC": mode.precision, "FULL": mode.full}
    return sequences.shared | known | {"TARGET": mode.target, "num_warps": plan.warps(mode, backward), "num_stages": 1}


def run(sequences: Sequences, mode: plan.Mode, inputs, start, out, met, end, states=None, reverse=False) -> None:
    """The outputs and the final states; or the states in between and what each position meets; or, in reverse, the
    gradients of v, of what each position meets and of the first states.
    """
    wide = plan.columns(sequences.value)
    forward_kernel[(sequences.programs, sequences.value // wide)](
        *(*inputs, start, out, met, end, states, sequences.bounds, sequences.length),
        **shared(sequences, mode) | {"BV": wide, "START": start is not None},
        **{"STATES": states is not None, "REVERSE": reverse},
    )


def backward(sequences: Sequences, mode: plan.Mode, inputs, start, dout, dend) -> tuple[list[Tensor], Tensor]:
    """Gradients of the inputs and of the first states."""
    r, w, k, v, a, b = inputs
    grads = [torch.empty_like(x) for x in inputs]
    dr, dw, dk, dv, da, db = grads
    met, dmet = (torch.empty_like(v, dtype=mode.states) for _ in range(2))
    states, dstart = sequences.states(r, sequences.slots(plan.CHUNK), mode.states), sequences.states(r)
    run(sequences, mode, inputs, start, None, met, None, states)
    run(sequences, mode, (r, w, k, dout, a, b), dend, dv, dmet, dstart, reverse=True)
    wide = plan.keys(sequences.key)
    backward_kernel[(sequences.programs, sequences.key // wide)](
        *(*inputs, met, dmet, dout, dend, states, dr, dw, dk, da, db, sequences.bounds, sequences.length),
        **shared(sequences, mode, backward=True) | {"BK": wide, "END": dend is not None},
    )
    return grads, dstart
