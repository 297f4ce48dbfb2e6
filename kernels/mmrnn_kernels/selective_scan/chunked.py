"""The selective scan in plain PyTorch, chunks side by side, exact for any decay. README.md has the mathematics."""

from dataclasses import dataclass
from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..common.autograd import refuse_second_derivative, save_inputs
from ..common.dtypes import accumulation_dtype
from ..common.tiling import split_range
from .reference import selective_scan_reference

SPAN = 16
"""Positions whose states are kept at once in the backward pass."""

STEP_ELEMENTS = 2**14
"""States that one step should update at least: fewer are bound by the calls of torch, so chunks run side by side."""

NEAR_ONE = -0.6931
"""Above this log-decay `decay - 1` is more exact than the decay, whose rounding error would add up."""


def selective_scan_chunked(
    x: Float[Tensor, "b t d"],
    dt: Float[Tensor, "b t d"],
    a: Float[Tensor, "d s"],
    b: Float[Tensor, "b t s"],
    c: Float[Tensor, "b t s"],
    state: Float[Tensor, "b d s"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d s"]]:
    """Compute the result of `selective_scan_reference`. Differentiable once."""
    if x.shape[1] == 1:
        return selective_scan_reference(x, dt, a, b, c, state)
    dtype = accumulation_dtype(x, dt, a, b, c, state)
    if state is None:
        state = x.new_zeros(len(x), *a.shape, dtype=dtype)
    return forward(x, dt, a, b, c, state.to(dtype))


def advance(state: Tensor, log: Tensor, write: Tensor | None = None) -> Tensor:
    """Return `exp(log) * state + write`; decays near one as the state and its loss, to which the write is added."""
    decay = log.exp()
    near = torch.gt(log, NEAR_ONE, out=torch.empty_like(log))  # one or zero
    # expm1(log), through the hyperbolic tangent, which torch computes in a third of the time.
    loss = torch.tanh(log / 2) * (decay + 1)
    change = torch.lerp(decay, loss, near)
    change = change * state if write is None else torch.addcmul(write, change, state)
    return torch.addcmul(change, near, state)


@dataclass(frozen=True)
class Steps:
    """Inputs of a scan cut into chunks whose positions are next to each other: `l b n d`, n chunks of l positions."""

    x: Float[Tensor, "l b n d"]
    dt: Float[Tensor, "l b n d"]
    a: Float[Tensor, "d s"]
    b: Float[Tensor, "l b n s"]
    c: Float[Tensor, "l b n s"]

    @classmethod
    def of(cls, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, dtype: torch.dtype) -> "Steps":
        """Cut the inputs (`b t ...`); positions that the last chunk lacks leave the state unchanged."""
        chunks = number_of_chunks(x, a)
        x, dt, b, c = (cut(one.to(dtype), chunks) for one in (x, dt, b, c))
        return cls(x, dt, a.to(dtype), b, c)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return self.x.shape[2]

    def log_decay(self, position: int) -> Float[Tensor, "b n d s"]:
        """Return the logarithm of the decays of a position of every chunk."""
        return self.dt[position, ..., None] * self.a

    def step(self, state: Tensor, position: int) -> Float[Tensor, "b n d s"]:
        """Advance the state of every chunk by one position."""
        write = (self.dt[position] * self.x[position])[..., None] * self.b[position, :, :, None]
        return advance(state, self.log_decay(position), write)

    def step_back(self, grad: Tensor, dout: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Return the gradient of the state behind a position, the read of it included, and of that before it."""
        grad = grad + dout[position, ..., None] * self.c[position, :, :, None]
        return grad, advance(grad, self.log_decay(position))

    def carry(self, state: Tensor, ends: Tensor, backwards: bool = False) -> Float[Tensor, "b n d s"]:
        """Return the state that every chunk starts from, given what each makes of a state of zeros."""
        total, starts = self.dt.sum(0)[..., None] * self.a, torch.empty_like(ends)  # b n d s
        for chunk in reversed(range(self.chunks)) if backwards else range(self.chunks):
            starts[:, chunk] = state
            state = advance(state, total[:, chunk], ends[:, chunk])
        return starts

    def starts(self, state: Tensor) -> Float[Tensor, "b n d s"]:
        """Return the state that every chunk starts from."""
        if self.chunks == 1:
            return state[:, None]
        ends = self.x.new_zeros(*self.x.shape[1:], state.shape[-1])
        for position in range(len(self.x)):
            ends = self.step(ends, position)
        return self.carry(state, ends)

    def grads(self, dstate: Tensor, dout: Tensor) -> Float[Tensor, "b n d s"]:
        """Return the gradient of the state that every chunk ends with."""
        if self.chunks == 1:
            return dstate[:, None]
        ends = self.x.new_zeros(*self.x.shape[1:], dstate.shape[-1])
        for position in reversed(range(len(self.x))):
            _, ends = self.step_back(ends, dout, position)
        return self.carry(dstate, ends, backwards=True)


def number_of_chunks(x: Tensor, a: Tensor) -> int:
    """Return into how many chunks rows are cut: none on a CPU where one position has enough states."""
    enough = STEP_ELEMENTS if x.device.type == "cpu" else 2**10 * STEP_ELEMENTS
    return max(1, min(isqrt(x.shape[1]), enough // (len(x) * a.numel())))


def cut(x: Float[Tensor, "b t c"], chunks: int) -> Float[Tensor, "l b n c"]:
    """Cut rows into chunks, filled up with zeros."""
    length = -(-x.shape[1] // chunks)
    padded = F.pad(x, (0, 0, 0, chunks * length - x.shape[1]))
    return padded.view(len(x), chunks, length, -1).permute(2, 0, 1, 3).contiguous()


def join(x: Float[Tensor, "l b n c"], length: int) -> Float[Tensor, "b t c"]:
    """Join chunks to rows of `length` positions, the inverse of `cut`."""
    return x.permute(1, 2, 0, 3).flatten(1, 2)[:, :length]


@torch.library.custom_op("mmrnn::selective_scan_chunked", mutates_args=())
def forward(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the output and the final state."""
    steps = Steps.of(x, dt, a, b, c, state.dtype)
    now, out = steps.starts(state), torch.empty_like(steps.x)
    for position in range(len(out)):
        now = steps.step(now, position)
        out[position] = (now * steps.c[position, :, :, None]).sum(-1)
    return join(out, x.shape[1]).to(x.dtype, copy=True).contiguous(), now[:, -1].clone()


@torch.library.custom_op("mmrnn::selective_scan_chunked_backward", mutates_args=())
def backward(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, dout: Tensor, dstate: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, dt, a, b, c and the initial state."""
    steps = Steps.of(x, dt, a, b, c, state.dtype)
    dy = cut(dout.to(state.dtype), steps.chunks)
    spans, now, starts = split_range(len(dy), SPAN), steps.starts(state), []
    for span in spans:
        starts.append(now)
        for position in range(span.start, min(span.stop, len(dy) - 1)):
            now = steps.step(now, position)
    found, grad = Gradients.empty(steps), steps.grads(dstate, dy)
    for span, start in zip(reversed(spans), reversed(starts), strict=True):
        grad = found.of_span(steps, dy, range(span.start, span.stop), start, grad)
    timed = (join(one, x.shape[1]) for one in (found.x, found.dt, found.b, found.c))
    dx, ddt, db, dc = (one.to(like.dtype, copy=True) for one, like in zip(timed, (x, dt, b, c), strict=True))
    dstart = grad[:, 0].to(state.dtype, copy=True).contiguous()
    return dx.contiguous(), ddt.contiguous(), found.a.to(a.dtype, copy=True), db.contiguous(), dc.contiguous(), dstart


@dataclass(frozen=True)
class Gradients:
    """Gradients of the inputs, filled position by position; that of `a` is summed."""

    x: Float[Tensor, "l b n d"]
    dt: Float[Tensor, "l b n d"]
    a: Float[Tensor, "d s"]
    b: Float[Tensor, "l b n s"]
    c: Float[Tensor, "l b n s"]

    @classmethod
    def empty(cls, steps: Steps) -> "Gradients":
        """Allocate them."""
        x, dt, b, c = (torch.empty_like(one) for one in (steps.x, steps.dt, steps.b, steps.c))
        return cls(x, dt, torch.zeros_like(steps.a), b, c)

    def of_span(self, steps: Steps, dy: Tensor, positions: range, start: Tensor, grad: Tensor) -> Tensor:
        """Fill in the positions of a span, (3) to (6); return the gradient of the state before it."""
        states = [start]
        for position in positions:
            states.append(steps.step(states[-1], position))
        for position in reversed(positions):
            x, dt, b = steps.x[position], steps.dt[position], steps.b[position]
            after, before = states.pop(), states[-1]
            grad, previous = steps.step_back(grad, dy, position)
            written = (grad * b[:, :, None]).sum(-1)  # b n d
            decayed = before * previous  # gradient of the log-decay
            self.x[position] = dt * written
            self.dt[position] = x * written + (decayed * steps.a).sum(-1)
            self.b[position] = ((dt * x)[..., None] * grad).sum(2)
            self.c[position] = (dy[position, ..., None] * after).sum(2)
            self.a.add_((decayed * dt[..., None]).sum((0, 1)))
            grad = previous
        return grad


@forward.register_fake
def _(*inputs):
    x, *_, state = inputs
    return x.new_empty(x.shape), state.new_empty(state.shape)


@backward.register_fake
def _(*inputs):
    return tuple(x.new_empty(x.shape) for x in inputs[:6])


def differentiate(ctx, dout: Tensor | None, dstate: Tensor | None):
    """Compute the gradients; one of an output that is not used is zero."""
    inputs = ctx.saved_tensors  # read once: inside a checkpoint they can be unpacked only once
    x, state = inputs[0], inputs[5]
    dout = x.new_zeros(x.shape) if dout is None else dout
    return backward(*inputs, dout, state.new_zeros(state.shape) if dstate is None else dstate)


forward.register_autograd(differentiate, setup_context=save_inputs)
refuse_second_derivative(backward)
