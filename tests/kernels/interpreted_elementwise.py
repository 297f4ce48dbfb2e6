"""Results of interpreter.py for the elementwise operators."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mmrnn_kernels
from mmrnn_kernels import lerp, norm_gate, relu_square, sigmoid_gate
from mmrnn_kernels.elementwise.triton import gate_ops, lerp_op, plan


def elementwise(name, inputs, grads, backend="triton", positions=4):
    """Outputs and the gradients of all inputs; those of outputs may be None. `positions` are those of a program: few,
    so that there are several programs soon."""
    plan.MAX_POSITIONS = positions
    leaves = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    wanted = [x.requires_grad_() for x in leaves if isinstance(x, torch.Tensor) and x.is_floating_point()]
    *tensors, starts = leaves if name == "lerp" else (*leaves, None)
    options = {"backend": backend} | ({"starts": starts} if name == "lerp" else {})
    outputs = getattr(mmrnn_kernels, name)(*tensors, **options)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    used = [(y, g) for y, g in zip(outputs, grads, strict=True) if g is not None]
    found = torch.autograd.grad([y for y, _ in used], wanted, [g for _, g in used])
    return [*(y.detach() for y in outputs), *found]


def taken(name, inputs, grads):
    """The operators of this library that `auto` calls."""
    called = []

    class Listen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == "mmrnn":
                called.append(func.name().removeprefix("mmrnn::"))
            return func(*args, **(kwargs or {}))

    with Listen():
        elementwise(name, inputs, grads, backend="auto")
    return called


def draw(*shape):
    return torch.randn(shape, requires_grad=True)


def elementwise_checked():
    """`opcheck` of all operators; then what a traced model of them answers, forward and backward, beside the model."""
    torch.use_deterministic_algorithms(False)
    check = torch.library.opcheck
    x, each, last, weights, offsets = draw(2, 3, 20), draw(2, 3, 20), draw(2, 20), draw(3, 20), draw(3, 2, 3, 20)
    heads, weight, bias, starts = draw(2, 3, 4, 5), draw(20), draw(20), torch.tensor([[0, 1, 0], [1, 0, 0]]).bool()
    check(lerp_op.forward, (x, each, weights, offsets, None))
    check(lerp_op.forward, (x, last, weights, None, starts))
    check(gate_ops.relu_square, (x,))
    check(gate_ops.sigmoid_gate, (x, each))
    check(gate_ops.norm_gate, (heads, x, weight, bias, 1e-5))
    a, b, c, w, o, h, u, v = (y.detach() for y in (x, each, last, weights, offsets, heads, weight, bias))
    check(lerp_op.backward, (a, b, w, o, None, [a, None, b]))
    check(lerp_op.backward, (a, c, w, None, starts, [None, b, a]))
    check(gate_ops.relu_square_backward, (a, b))
    check(gate_ops.sigmoid_gate_backward, (a, b, a))
    check(gate_ops.norm_gate_backward, (h, a, u, v, 1e-5, b))

    def model(x, last, weights, offsets, heads, weight, bias):
        first, _, third = lerp(x, last, weights, offsets, backend="triton")
        (only,) = lerp(x, third, weights[:1], backend="triton")
        square = relu_square(first, backend="triton")
        normed = norm_gate(heads, square, weight, bias, 1e-5, backend="triton")
        return normed + sigmoid_gate(only, third, backend="triton")

    compiled, found = torch.compile(model, backend="aot_eager", fullgraph=True), []
    for t in (3, 7, 1):
        shapes = (2, t, 20), (2, 20), (3, 20), (3, 2, t, 20), (2, t, 4, 5), (20,), (20,)
        inputs = [draw(*shape) for shape in shapes]
        for f in (compiled, model):
            out = f(*inputs)
            found.append([out.detach(), *torch.autograd.grad(out.square().sum(), inputs)])
    return found[::2], found[1::2]
