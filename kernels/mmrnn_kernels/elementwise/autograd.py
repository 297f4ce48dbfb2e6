"""Output shapes and gradients of the custom ops, registered with torch for the native and the Triton ones alike."""

from torch import Tensor
from torch.library import CustomOpDef

from ..common.autograd import refuse_second_derivative, save_inputs


def empty_like_all(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Allocate memory of the shapes and types of the inputs."""
    return tuple(x.new_empty(x.shape) for x in inputs)


def register_lerp(forward: CustomOpDef, backward: CustomOpDef) -> None:
    """Register `lerp`; `backward` returns an empty tensor if there are no offsets."""

    @forward.register_fake
    def _(x, *rest):
        return [x.new_empty(x.shape) for _ in rest[1]]

    @backward.register_fake
    def _(x, previous, weights, offsets, *_):
        doffsets = x.new_empty(0) if offsets is None else offsets.new_empty(offsets.shape)
        return *empty_like_all(x, previous, weights), doffsets

    def differentiate(ctx, grads):
        inputs = ctx.saved_tensors  # read once: inside a checkpoint they can be unpacked only once
        *found, doffsets = backward(*inputs, list(grads))
        return *found, None if inputs[3] is None else doffsets, None

    forward.register_autograd(differentiate, setup_context=save_inputs)
    refuse_second_derivative(backward)


def register_relu_square(forward: CustomOpDef, backward: CustomOpDef) -> None:
    """Register `relu_square`."""
    forward.register_fake(lambda x: x.new_empty(x.shape))
    backward.register_fake(lambda x, *_: x.new_empty(x.shape))
    forward.register_autograd(lambda ctx, grad: backward(*ctx.saved_tensors, grad), setup_context=save_inputs)
    refuse_second_derivative(backward)


def register_sigmoid_gate(forward: CustomOpDef, backward: CustomOpDef) -> None:
    """Register `sigmoid_gate`."""
    forward.register_fake(lambda *inputs: inputs[1].new_empty(inputs[1].shape))
    backward.register_fake(lambda *inputs: empty_like_all(*inputs[:2]))
    forward.register_autograd(lambda ctx, grad: backward(*ctx.saved_tensors, grad), setup_context=save_inputs)
    refuse_second_derivative(backward)


def register_norm_gate(forward: CustomOpDef, backward: CustomOpDef) -> None:
    """Register `norm_gate`."""
    forward.register_fake(lambda *inputs: inputs[1].new_empty(inputs[1].shape))
    backward.register_fake(lambda *inputs: empty_like_all(*inputs[:4]))

    def save(ctx, inputs, **_) -> None:
        ctx.eps = inputs[4]
        save_inputs(ctx, inputs)

    def differentiate(ctx, grad):
        return *backward(*ctx.saved_tensors, ctx.eps, grad), None

    forward.register_autograd(differentiate, setup_context=save)
    refuse_second_derivative(backward)
