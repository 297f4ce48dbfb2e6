"""What torch has to know of an implementation, the native one and Triton's alike: the shapes of its answers, and that
its second operator is the gradient of the first.
"""

from torch import Tensor
from torch.library import CustomOpDef

from ..inputs import remember


def like(*inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs)


def lerp(forward: CustomOpDef, backward: CustomOpDef) -> None:
    """`backward` answers with an empty tensor where there are no offsets."""

    @forward.register_fake
    def _(x, *rest):
        return [x.new_empty(x.shape) for _ in rest[1]]

    @backward.register_fake
    def _(x, previous, weights, offsets, *_):
        return *like(x, previous, weights), x.new_empty(0) if offsets is None else offsets.new_empty(offsets.shape)

    def differentiate(ctx, grads):
        inputs = ctx.saved_tensors  # asked for once: a checkpoint hands them out only once
        *found, doffsets = backward(*inputs, list(grads))
        return *found, None if inputs[3] is None else doffsets, None

    forward.register_autograd(differentiate, setup_context=remember)


def relu_square(forward: CustomOpDef, backward: CustomOpDef) -> None:
    forward.register_fake(lambda x: x.new_empty(x.shape))
    backward.register_fake(lambda x, *_: x.new_empty(x.shape))
    forward.register_autograd(lambda ctx, grad: backward(*ctx.saved_tensors, grad), setup_context=remember)


def sigmoid_gate(forward: CustomOpDef, backward: CustomOpDef) -> None:
    forward.register_fake(lambda *inputs: inputs[1].new_empty(inputs[1].shape))
    backward.register_fake(lambda *inputs: like(*inputs[:2]))
    forward.register_autograd(lambda ctx, grad: backward(*ctx.saved_tensors, grad), setup_context=remember)


def norm_gate(forward: CustomOpDef, backward: CustomOpDef) -> None:
    forward.register_fake(lambda *inputs: inputs[1].new_empty(inputs[1].shape))
    backward.register_fake(lambda *inputs: like(*inputs[:4]))

    def keep(ctx, inputs, **_) -> None:
        ctx.eps = inputs[4]
        remember(ctx, inputs)

    def differentiate(ctx, grad):
        return *backward(*ctx.saved_tensors, ctx.eps, grad), None

    forward.register_autograd(differentiate, setup_context=keep)
