"""Launches of the kernels that go chunk by chunk."""

import torch
from torch import Tensor

from ...common.triton.plan import CHUNK, CompileMode
from ...common.triton.sequences import Sequences
from . import plan
from .chunk_backward import chunk_backward_kernel
from .chunk_forward import chunk_forward_kernel
from .chunk_states import chunk_states_kernel

LEVELS = CHUNK.bit_length() - 1


def states(
    sequences: Sequences, mode: CompileMode, rows, columns, w, start, span, reverse=False, dtype=torch.float32
) -> Tensor:
    """Compute S before each piece of `span` positions, or in reverse G after it, `n h v k`."""
    found = sequences.empty_states(rows, sequences.slots(span), dtype)
    block = plan.columns(sequences.value, mode, sequences.programs, plan.processors(rows.device))
    chunk_states_kernel[(sequences.programs, sequences.value // block)](
        *(rows, columns, w, start, found, sequences.cu_seqlens, sequences.length, span),
        **sequences.constants | {"BK": sequences.key, "BV": block, "BT": CHUNK, "DOT_TYPE": mode.dot_type},
        **{"CONSTANT": w.dim() == 2, "HAS_START": start is not None, "REVERSE": reverse},
        **{"num_warps": plan.warps(sequences.key, mode), "num_stages": 1},
    )
    return found


def forward(sequences: Sequences, mode: CompileMode, r, k, v, w, u, start, out, end, reverse=False) -> None:
    """Fill `out` and `end`; in reverse, with r and k exchanged and the gradient of y as v, `out` is that of v."""
    processors = plan.processors(r.device)
    block = plan.columns(sequences.value, mode, sequences.programs, processors)
    tiles = sequences.value // block
    span, pieces = plan.pieces(sequences.longest, sequences.programs * tiles, processors)
    if pieces > 1:
        start = states(sequences, mode, k, v, w, start, span, reverse)
    chunk_forward_kernel[(sequences.programs, pieces * tiles)](
        *(r, k, v, w, u, start, out, end, sequences.cu_seqlens, sequences.length, span),
        **sequences.constants | {"BV": block, "BT": CHUNK, "LEVELS": LEVELS, "DOT_TYPE": mode.dot_type},
        **{"CONSTANT": w.dim() == 2, "HAS_START": start is not None, "HAS_PIECES": pieces > 1, "REVERSE": reverse},
        **{"num_warps": plan.warps(sequences.key, mode), "num_stages": 1},
    )


def backward(sequences: Sequences, mode: CompileMode, r, k, v, w, u, start, dout, dend) -> tuple[Tensor, ...]:
    """Compute the gradients of r, k, v, w, u and the initial states; those of u and of a constant w by piece."""
    constant, block = w.dim() == 2, plan.backward_keys(sequences.key, mode)
    tiles = sequences.key // block
    span, pieces = plan.pieces(sequences.longest, sequences.programs * tiles, plan.processors(r.device))
    dr, dk, dv, dstart = *(torch.empty_like(x) for x in (r, k, v)), sequences.empty_states(r)
    du = r.new_zeros((sequences.slots(span), *u.shape), dtype=torch.float32)  # a slot without a piece stays zero
    dw = torch.zeros_like(du) if constant else torch.empty_like(w)
    if tiles > 1:
        forward(sequences, mode, k, r, dout, w, u, dend, dv, None, reverse=True)
    before = states(sequences, mode, k, v, w, start, CHUNK, dtype=mode.state_dtype)
    ends = states(sequences, mode, r, dout, w, dend, span, reverse=True) if pieces > 1 else None
    chunk_backward_kernel[(sequences.programs, pieces * tiles)](
        *(r, k, v, w, u, dout, dend, before, ends, dr, dk, dv if tiles == 1 else None, dw, du, dstart),
        *(sequences.cu_seqlens, sequences.length, span),
        **sequences.constants | {"BK": block, "BT": CHUNK, "LEVELS": LEVELS, "DOT_TYPE": mode.dot_type},
        **{"TARGET": mode.target, "CONSTANT": constant},
        **{"HAS_DEND": dend is not None, "HAS_PIECES": pieces > 1, "STORE_DV": tiles == 1},
        **{"num_warps": plan.warps(sequences.key, mode, backward=True, constant=constant), "num_stages": 1},
    )
    return dr, dk, dv, dw, du, dstart
