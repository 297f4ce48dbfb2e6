"""The kernels as operators of torch: differentiable, traceable, and with nothing saved but the inputs."""

import torch
from torch import Tensor

from ...inputs import remember
from ...rows import single
from ...segments import lengths
from . import plan
from .backward import backward_kernel
from .forward import forward_kernel
from .recurrent import recurrent_kernel
from .states import states_kernel


class Sequences:
    """Where sequences lie in the rows, and what every kernel is told about them.

    Raises:
        ValueError: bounds that do not fit the row.
    """

    def __init__(self, r: Tensor, v: Tensor, w: Tensor, bounds: Tensor | None):
        batch, length, heads, key = r.shape
        sizes = [length] * batch if bounds is None else lengths("wkv", bounds, batch, length)
        self.positions, self.length = batch * length, length
        self.count, self.longest = len(sizes), max(sizes)
        self.bounds = None if bounds is None else bounds.to(r.device)
        self.heads, self.key, self.value = heads, key, v.shape[-1]
        self.programs = self.count * heads
        self.shared = {"H": heads, "K": key, "V": self.value, "PACKED": bounds is not None, "CONSTANT": w.dim() == 2}

    def slots(self, span: int) -> int:
        """How many pieces of `span` positions there may be."""
        return self.positions // span + self.count

    def room(self, x: Tensor, slots: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return x.new_empty((slots, self.heads, self.value, self.key), dtype=dtype)

    def states(self, rows, columns, w, start, span, mode, reverse, dtype=torch.float32) -> Tensor:
        """S before each piece of `span` positions, or, in reverse, G after it."""
        found = self.room(rows, self.slots(span), dtype)
        wide = plan.columns(plan.tile(self.value, mode), self.programs, plan.processors(rows.device))
        states_kernel[(self.programs, self.value // wide)](
            *(rows, columns, w, start, found, self.bounds, self.length, span),
            **self.shared | {"BK": self.key, "BV": wide, "C": plan.CHUNK, "PREC": mode.precision},
            **{"START": start is not None, "REVERSE": reverse},
            **{"num_warps": plan.warps(self.key, mode), "num_stages": 1},
        )
        return found


@torch.library.custom_op("mmrnn::wkv6_triton", mutates_args=())
def forward(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor | None, bounds: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The output and the final states."""
    sequences = Sequences(r, v, w, bounds)
    r, k, v, w, u, start = *(x.contiguous() for x in (r, k, v, w, u)), single(state)
    out = torch.empty_like(v)
    end = r.new_empty((sequences.count, sequences.heads, sequences.key, sequences.value), dtype=torch.float32)
    with torch.cuda.device_of(r):
        if sequences.longest <= plan.SHORT:
            recur(sequences, r, k, v, w, u, start, out, end)
        else:
            chunks(sequences, r, k, v, w, u, start, out, end)
    return out, end


def recur(sequences: Sequences, r, k, v, w, u, start, out, end) -> None:
    wide = min(32, sequences.value)
    recurrent_kernel[(sequences.programs, sequences.value // wide)](
        *(r, k, v, w, u, start, out, end, sequences.bounds, sequences.length),
        **sequences.shared | {"BV": wide, "START": start is not None},
        num_warps=4,
    )


def chunks(sequences: Sequences, r, k, v, w, u, start, out, end) -> None:
    mode, processors = plan.mode(r, k, v), plan.processors(r.device)
    wide = plan.columns(plan.tile(sequences.value, mode), sequences.programs, processors)
    tiles = sequences.value // wide
    span, pieces = plan.span(sequences.longest, sequences.programs * tiles, processors)
    if pieces > 1:
        start = sequences.states(k, v, w, start, span, mode, reverse=False)
    forward_kernel[(sequences.programs, pieces * tiles)](
        *(r, k, v, w, u, start, out, end, sequences.bounds, sequences.length, span),
        **sequences.shared | {"BV": wide, "C": plan.CHUNK, "LEVELS": plan.CHUNK.bit_length() - 1},
        **{"PREC": mode.precision, "START": start is not None, "PIECES": pieces > 1},
        **{"num_warps": plan.warps(sequences.key, mode), "num_stages": 1},
    )


@torch.library.custom_op("mmrnn::wkv6_triton_backward", mutates_args=())
def backward(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    state: Tensor | None,
    bounds: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of r, k, v, w, u and the first states (empty where there are none)."""
    sequences, mode = Sequences(r, v, w, bounds), plan.mode(r, k, v)
    dout = torch.zeros_like(v) if dout is None else dout.to(v.dtype)
    r, k, v, w, u, dout = (x.contiguous() for x in (r, k, v, w, u, dout))
    start, dend = single(state), single(dend)
    wide = plan.tile(sequences.value, mode, backward=True)
    tiles, constant = sequences.value // wide, w.dim() == 2
    span, pieces = plan.span(sequences.longest, sequences.programs * tiles, plan.processors(r.device))
    slots = sequences.slots(span)

    # A share a tile, summed in the order of tiles; where there is one tile it is the gradient itself.
    dr, dk, dw = (shares(x, tiles) for x in (r, k, w))
    dv = torch.empty_like(v)
    dstart = r.new_empty((sequences.count, *u.shape, sequences.value), dtype=torch.float32)
    # And a share a piece; slots without a piece hold zeros.
    du = r.new_zeros((tiles * slots, *u.shape), dtype=torch.float32)
    dw = torch.zeros_like(du) if constant else dw
    with torch.cuda.device_of(r):
        states = sequences.states(k, v, w, start, plan.CHUNK, mode, reverse=False, dtype=mode.states)
        ends = sequences.states(r, dout, w, dend, span, mode, reverse=True) if pieces > 1 else None
        backward_kernel[(sequences.programs, pieces * tiles)](
            *(r, k, v, w, u, dout, dend, states, ends, dr, dk, dv, dw, du, dstart),
            *(sequences.bounds, sequences.length, span, sequences.positions, slots),
            **sequences.shared | {"BV": wide, "C": plan.CHUNK, "LEVELS": plan.CHUNK.bit_length() - 1},
            **{"PREC": mode.precision, "TARGET": mode.target, "LEAN": plan.lean(r.device)},
            **{"END": dend is not None, "PIECES": pieces > 1},
            **{"num_warps": plan.warps(sequences.key, mode), "num_stages": 1},
        )
    if tiles > 1:
        dr, dk = dr.sum(0).to(r.dtype), dk.sum(0).to(k.dtype)
    if tiles > 1 or constant:
        dw = dw.sum(0).to(w.dtype)
    first = r.new_empty(0) if state is None else dstart.to(state.dtype)
    return dr, dk, dv, dw, du.sum(0).to(u.dtype), first


def shares(x: Tensor, tiles: int) -> Tensor:
    return torch.empty_like(x) if tiles == 1 else x.new_empty((tiles, *x.shape), dtype=torch.float32)


@forward.register_fake
def _(*inputs):
    r, _, v, _, u, _, bounds = inputs
    count = len(r) if bounds is None else len(bounds) - 1
    return v.new_empty(v.shape), r.new_empty((count, *u.shape, v.shape[-1]), dtype=torch.float32)


@backward.register_fake
def _(*inputs):
    r, state = inputs[0], inputs[5]
    first = r.new_empty(0) if state is None else state.new_empty(state.shape)
    return *(x.new_empty(x.shape) for x in inputs[:5]), first


def differentiate(ctx, dout: Tensor | None, dend: Tensor | None):
    inputs = ctx.saved_tensors  # asked for once: a checkpoint hands them out only once
    *grads, dstate = backward(*inputs, dout, dend)
    return *grads, None if inputs[5] is None else dstate, None


forward.register_autograd(differentiate, setup_context=remember)


@torch.library.custom_op("mmrnn::wkv6_triton_step", mutates_args=("state",))
def advance(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> Tensor:
    """The output of one position (`b h k`); `state` moves on."""
    constant = w.dim() == 2
    rows = [x.unsqueeze(1).contiguous() for x in (r, k, v)]
    w = (w if constant else w.unsqueeze(1)).contiguous()
    sequences = Sequences(rows[0], rows[2], w, None)
    out = torch.empty_like(rows[2])
    with torch.cuda.device_of(r):
        recur(sequences, *rows, w, u.contiguous(), state, out, state)
    return out.squeeze(1)


@advance.register_fake
def _(r, k, v, w, u, state):  # noqa: ARG001
    return v.new_empty(v.shape)
