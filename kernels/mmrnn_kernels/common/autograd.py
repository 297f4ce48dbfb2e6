"""Output shapes and gradients of the WKV custom ops, registered with torch."""

import torch
from torch import Tensor
from torch.library import CustomOpDef

from .tiling import empty_chunk_states


def save_inputs(ctx, inputs: tuple, **_) -> None:
    """Save the input tensors for the backward pass; gradients of unused outputs stay None."""
    ctx.save_for_backward(*(x for x in inputs if x is None or isinstance(x, Tensor)))
    ctx.set_materialize_grads(False)


def refuse_second_derivative(backward: CustomOpDef) -> None:
    """Register that the gradients which `backward` computes have no gradients themselves."""
    name = backward._name.split("::")[-1].removesuffix("_backward")

    def refuse(*_):
        raise RuntimeError(f'{name} is differentiable once; for second derivatives choose backend="reference"')

    backward.register_autograd(refuse)


def register_recurrence(
    forward: CustomOpDef, backward: CustomOpDef, *, value: int, state: int, size: int | None = None
) -> None:
    """Register an operator that recomputes everything from its inputs in the backward pass.

    Args:
        forward: `forward(*inputs, state)` or `forward(*inputs, state, cu_seqlens)` -> output, final state.
        backward: the same inputs, then the gradients of both outputs -> gradients of `inputs` and the state (empty if
            there is none).
        value, state: positions of the input that the output is like, and of the state, among the arguments. The state
            has the axes of the first input without its positions, and one more.
        size: position of the input whose last axis that one is (default: `value`).
    """
    size = value if size is None else size

    @forward.register_fake
    def _(*inputs):
        r, v, cu_seqlens = inputs[0], inputs[value], (*inputs[state + 1 :], None)[0]
        count = len(r) if cu_seqlens is None else len(cu_seqlens) - 1
        states = r.new_empty((count, *r.shape[2:], inputs[size].shape[-1]), dtype=torch.float32)
        return v.new_empty(v.shape), states

    @backward.register_fake
    def _(*inputs):
        start = inputs[state]
        dstart = inputs[0].new_empty(0) if start is None else start.new_empty(start.shape)
        return *(x.new_empty(x.shape) for x in inputs[:state]), dstart

    def differentiate(ctx, dout: Tensor | None, dend: Tensor | None):
        inputs = ctx.saved_tensors  # read once: inside a checkpoint they can be unpacked only once
        *grads, dstart = backward(*inputs, dout, dend)
        return *grads, None if inputs[state] is None else dstart, *(None for _ in inputs[state + 1 :])

    forward.register_autograd(differentiate, setup_context=save_inputs)
    refuse_second_derivative(backward)


def register_chunked(forward: CustomOpDef, backward: CustomOpDef, *, value: int) -> None:
    """Register an operator that saves the state at the start of every chunk.

    Args:
        forward: `forward(*inputs, state, chunk, save)` -> output, final state, states of the chunks.
        backward: `backward(*inputs, chunk_states, dout, dstate, chunk)` -> gradients of `inputs` and the state.
        value: position of `v` among the arguments; `r` is the first.
    """

    @forward.register_fake
    def _(*inputs):
        *_, state, chunk, save = inputs
        r, v = inputs[0], inputs[value]
        return v.new_empty(v.shape), state.new_empty(state.shape), empty_chunk_states(r, state, chunk, save)

    @backward.register_fake
    def _(*inputs):
        *tensors, _, _, dstate, _ = inputs
        return tuple(x.new_empty(x.shape) for x in (*tensors, dstate))

    def save(ctx, inputs, output):
        *tensors, _, ctx.chunk, _ = inputs
        _, state, chunk_states = output
        ctx.save_for_backward(*tensors, chunk_states)
        ctx.state_shape = state.shape
        ctx.set_materialize_grads(False)

    def differentiate(ctx, dout: Tensor | None, dstate: Tensor | None, _):
        *inputs, chunk_states = ctx.saved_tensors
        v = inputs[value]
        dout = v.new_zeros(v.shape) if dout is None else dout
        dstate = chunk_states.new_zeros(ctx.state_shape) if dstate is None else dstate
        return *backward(*inputs, chunk_states, dout, dstate, ctx.chunk), None, None

    forward.register_autograd(differentiate, setup_context=save)
    refuse_second_derivative(backward)
