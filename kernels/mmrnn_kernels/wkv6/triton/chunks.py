"""The operator chunk by chunk: the launches of `forward.py`, `states.py` and `backward.py`."""

import torch
from torch import Tensor

from . import plan
from .backward import backward_kernel
from .forward import forward_kernel
from .sequences import Sequences
from .states import states_kernel


def states(sequences: Sequences, mode, rows, columns, w, start, span, reverse=False, dtype=torch.float32) -> Tensor:
    """S before each piece of `span` positions, or, in reverse, G after it; values are rows."""
    found = sequences.states(rows, sequences.slots(span), dtype)
    wide = plan.columns(plan.tile(sequences.value, mode), sequences.programs, plan.processors(rows.device))
    states_kernel[(sequences.programs, sequences.value // wide)](
        *(rows, columns, w, start, found, sequences.bounds, sequences.length, span),
        **sequences.shared | {"BK": sequences.key, "BV": wide, "C": plan.CHUNK, "PREC": mode.precision},
        **{"CONSTANT": w.dim() == 2, "START": start is not None, "REVERSE": reverse},
        **{"num_warps": plan.warps(sequences.key, mode), "num_stages": 1},
    )
    return found


def forward(sequences: Sequences, mode, r, k, v, w, u, start, out, end, reverse=False) -> None:
    processors = plan.processors(r.device)
    wide = plan.columns(plan.tile(sequences.value, mode), sequences.programs, processors)
    tiles = sequences.value // wide
    span, pieces = plan.span(sequences.longest, sequences.programs * tiles, processors)
    if pieces > 1:
        start = states(sequences, mode, k, v, w, start, span, reverse)
    forward_kernel[(sequences.programs, pieces * tiles)](
        *(r, k, v, w, u, start, out, end, sequences.bounds, sequences.length, span),
        **sequences.shared | {"BV": wide, "C": plan.CHUNK, "LEVELS": plan.CHUNK.bit_length() - 1},
        **{"PREC": mode.precision, "CONSTANT": w.dim() == 2, "START": start is not None, "PIECES": pieces > 1},
        **{"REVERSE": reverse, "num_warps": plan.warps(sequences.key, mode), "num_stages": 1},
    )


def backward(sequences: Sequences, mode, r, k, v, w, u, start, dout, dend) -> tuple[Tensor, ...]:
    """Gradients of r, k, v, w, u and of the first states; those of w and u by piece where they have no positions."""
    constant, wide = w.dim() == 2, plan.keys(sequences.key, mode)
    tiles = sequences.key // wide
    span, pieces = plan.span(sequences.longest, sequences.programs * tiles, plan.processors(r.device))
    dr, dk, dv, dstart = *(torch.empty_like(x) for x in (r, k, v)), sequences.states(r)
    du = r.new_zeros((sequences.slots(span), *u.shape), dtype=torch.float32)  # a slot without a piece stays zero
    dw = torch.zeros_like(du) if constant else torch.empty_like(w)
    if tiles > 1:
        forward(sequences, mode, k, r, dout, w, u, dend, dv, None, reverse=True)
    before = states(sequences, mode, k, v, w, start, plan.CHUNK, dtype=mode.states)
    ends = states(sequences, mode, r, dout, w, dend, span, reverse=True) if pieces > 1 else None
    backward_kernel[(sequences.programs, pieces * tiles)](
        *(r, k, v, w, u, dout, dend, before, ends, dr, dk, dv if tiles == 1 else None, dw, du, dstart),
        *(sequences.bounds, sequences.length, span),
        **sequences.shared | {"BK": wide, "C": plan.CHUNK, "LEVELS": plan.CHUNK.bit_length() - 1},
        **{"PREC": mode.precision, "TARGET": mode.target, "CONSTANT": constant},
        **{"END": dend is not None, "PIECES": pieces > 1, "VALUES": tiles == 1},
        **{"num_warps": plan.warps(sequences.key, mode, backward=True, constant=constant), "num_stages": 1},
    )
    return dr, dk, dv, dw, du, dstart
