"""The kernels as operators of torch: differentiable, traceable, and with nothing saved but the inputs."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ...inputs import remember
from ...rows import single
from ...segments import lengths
from .backward import backward_kernel
from .forward import forward_kernel

CHUNK = 16
"""Positions of a tile: each doubling is one more level for every position, and more registers than there are."""


class Mode(NamedTuple):
    """What the factors of products are rounded to, and of those that stay exact (sums of logarithms, the inverse); and
    whose instructions are used."""

    precision: str
    full: str
    target: str


def mode(*inputs: Tensor) -> Mode:
    dtypes = {x.dtype for x in inputs}
    if inputs[0].device.type != "cuda":
        return Mode("bf16 emulated" if dtypes == {torch.bfloat16} else "ieee", "ieee", "interpreter")
    return compiled(dtypes, "hip" if torch.version.hip else "cuda")


def compiled(dtypes: set[torch.dtype], target: str) -> Mode:
    """On a GPU. fp16 is multiplied as TF32, which has the range that states need. Beside factors in bf16 TF32 is exact
    enough for the rest: x 2^-11 off in the exponent, a decay exp(-x) is off by less than 2^-12."""
    full = "ieee" if target == "hip" else "tf32x3"
    if dtypes == {torch.bfloat16}:
        return Mode("bf16", "ieee" if target == "hip" else "tf32", target)
    return Mode(full if torch.float32 in dtypes or target == "hip" else "tf32", full, target)


class Sequences:
    """Where sequences lie in the rows, and what every kernel is told about them.

    Raises:
        ValueError: bounds that do not fit the row.
    """

    def __init__(self, r: Tensor, v: Tensor, bounds: Tensor | None, mode: Mode):
        batch, length, heads, key = r.shape
        sizes = [length] * batch if bounds is None else lengths("wkv7", bounds, batch, length)
        self.count, self.length = len(sizes), length
        self.chunks = batch * length // CHUNK + self.count
        self.bounds = None if bounds is None else bounds.to(r.device)
        self.states = (heads, key, v.shape[-1])
        self.programs = self.count * heads
        self.shared = {"H": heads, "K": key, "V": v.shape[-1], "C": CHUNK, "LEVELS": CHUNK.bit_length() - 1}
        self.shared |= {"PREC": mode.precision, "FULL": mode.full, "TARGET": mode.target, "PACKED": bounds is not None}
        self.shared |= {"num_stages": 1}
        self.warps = 4 if mode.precision == "bf16" else 8

    def run(self, inputs: list[Tensor], start: Tensor | None, out, end, states) -> None:
        """Columns of the state know nothing of each other: half of them a program, so that they stay in registers."""
        value = self.shared["V"]
        wide = max(16, value // 2)
        forward_kernel[(self.programs, triton.cdiv(value, wide))](
            *(*inputs, start, out, end, states, self.bounds, self.length),
            **self.shared | {"BV": wide, "START": start is not None, "STATES": states is not None},
            num_warps=self.warps,
        )


@torch.library.custom_op("mmrnn::wkv7_triton", mutates_args=())
def forward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None,
    bounds: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The output and the final states."""
    sequences = Sequences(r, v, bounds, mode(r, k, v, a, b))
    inputs = [x.contiguous() for x in (r, w, k, v, a, b)]
    out, end = torch.empty_like(inputs[3]), r.new_empty((sequences.count, *sequences.states), dtype=torch.float32)
    with torch.cuda.device_of(r):
        sequences.run(inputs, single(state), out, end, None)
    return out, end


@torch.library.custom_op("mmrnn::wkv7_triton_backward", mutates_args=())
def backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None,
    bounds: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of r, w, k, v, a, b and the first states (empty where there are none)."""
    sequences = Sequences(r, v, bounds, mode(r, k, v, a, b))
    dout = (torch.zeros_like(v) if dout is None else dout.to(v.dtype)).contiguous()
    inputs, dend = [x.contiguous() for x in (r, w, k, v, a, b)], single(dend)
    grads = [torch.empty_like(x) for x in inputs]
    states = r.new_empty((sequences.chunks, *sequences.states), dtype=torch.float32)
    dstart = r.new_empty((sequences.count, *sequences.states), dtype=torch.float32)
    with torch.cuda.device_of(r):
        sequences.run(inputs, single(state), None, None, states)
        backward_kernel[(sequences.programs,)](
            *(*inputs, dout, dend, states, *grads, dstart, sequences.bounds, sequences.length),
            **sequences.shared | {"END": dend is not None},
            num_warps=8,
        )
    return *grads, r.new_empty(0) if state is None else dstart.to(state.dtype)


@forward.register_fake
def _(*inputs):
    r, v, bounds = inputs[0], inputs[3], inputs[7]
    count = len(r) if bounds is None else len(bounds) - 1
    return v.new_empty(v.shape), r.new_empty((count, *r.shape[2:], v.shape[-1]), dtype=torch.float32)


@backward.register_fake
def _(*inputs):
    r, state = inputs[0], inputs[6]
    first = r.new_empty(0) if state is None else state.new_empty(state.shape)
    return *(x.new_empty(x.shape) for x in inputs[:6]), first


def differentiate(ctx, dout: Tensor | None, dend: Tensor | None):
    inputs = ctx.saved_tensors  # asked for once: a checkpoint hands them out only once
    *grads, dstate = backward(*inputs, dout, dend)
    return *grads, None if inputs[6] is None else dstate, None


forward.register_autograd(differentiate, setup_context=remember)
