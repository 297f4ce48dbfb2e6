"""Inputs, outputs and gradients of the selective scan, for the tests of its backends."""

import torch

from mmrnn_kernels import selective_scan

NAMES = ("out", "end", "dx", "ddt", "da", "db", "dc", "dstate")
REGIMES = {"model": (-8, -0.5), "mixed": (-8, 5), "strong": (2, 5), "weak": (-9, -7), "beyond": (-8, 40)}
"""Logarithms of the step sizes, the log-decay of rates near one: what is kept, and what is forgotten at once."""


def draw(b, t, d, s, regime="mixed", seed=0, rows=None):
    """Inputs as fp32 numbers in fp64, and gradients of both outputs. `rows`: the number of states."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    low, high = REGIMES[regime]
    dt = torch.exp(torch.rand((b, t, d), generator=generator) * (high - low) + low)
    rates = -torch.exp(torch.rand((d, s), generator=generator) * 2 - 1)
    inputs = (normal(b, t, d), dt, rates, normal(b, t, s), normal(b, t, s), normal(rows or b, d, s))
    return [x.double() for x in inputs], [normal(b, t, d).double(), normal(rows or b, d, s).double()]


def single(inputs):
    return [x.float() for x in inputs]


def run(inputs, grads, op=selective_scan, **options):
    """Outputs and all gradients by name."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = op(*leaves, **options)
    used = [(y, g.to(y.dtype)) for y, g in zip(outputs, grads, strict=True) if g is not None]
    found = torch.autograd.grad([y for y, _ in used], leaves, [g for _, g in used], materialize_grads=True)
    return dict(zip(NAMES, (*(y.detach() for y in outputs), *found), strict=True))
