import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fresh memory is full of NaN, so that output nobody wrote cannot pass."""

    def poisoned(make):
        def made(*args, **kwargs):
            x = make(*args, **kwargs)
            return x.fill_(torch.nan) if x.is_floating_point() else x

        return made

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))


@pytest.fixture
def draw():
    """Inputs of an operator: r, k, v, w, u, state (wkv7: r, w, k, v, a, b, state; delta: q, k, v, g, beta, state with
    g = -exp(w)) and gradients for both outputs, all fp64."""

    def draw(op, b, t, h, k, v, low=-7.0, high=-1.0, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        def uniform(*shape):
            return torch.rand(shape, generator=generator, dtype=torch.float64)

        if op.__name__ in ("gated_delta_rule", "kda"):
            unit = torch.nn.functional.normalize(normal(b, t, h, k), dim=-1)
            decays = (b, t, h, k) if op.__name__ == "kda" else (b, t, h)
            g = -torch.exp(uniform(*decays) * (high - low) + low)
            inputs = (normal(b, t, h, k), unit, normal(b, t, h, v), g, uniform(b, t, h), normal(b, h, k, v))
            return inputs, (normal(b, t, h, v), normal(b, h, k, v))
        decays = (h, k) if op.__name__ == "wkv5" else (b, t, h, k)
        w = uniform(*decays) * (high - low) + low
        if op.__name__ == "wkv7":
            kappa = torch.nn.functional.normalize(normal(b, t, h, k), dim=-1)
            removal = (-kappa, kappa * uniform(b, t, h, k))
            inputs = (normal(b, t, h, k), w, normal(b, t, h, k), normal(b, t, h, v), *removal, normal(b, h, k, v))
            return inputs, (normal(b, t, h, v), normal(b, h, k, v))
        inputs = (normal(b, t, h, k), normal(b, t, h, k), normal(b, t, h, v), w, normal(h, k), normal(b, h, k, v))
        return inputs, (normal(b, t, h, v), normal(b, h, k, v))

    return draw


NAMES = {
    6: ("out", "end", "dr", "dk", "dv", "dw", "du", "dstate"),
    7: ("out", "end", "dr", "dw", "dk", "dv", "da", "db", "dstate"),
}


@pytest.fixture
def run():
    """Outputs and all gradients by name."""

    def run(op, inputs, grads, **options):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        out, end = op(*leaves, **options)
        found = torch.autograd.grad((out, end), leaves, [g.to(x.dtype) for g, x in zip(grads, (out, end), strict=True)])
        return dict(zip(NAMES[len(inputs)], (out.detach(), end.detach(), *found), strict=True))

    return run


@pytest.fixture
def agree():
    """Every tensor within `limit` of the truth, relative to the truth's largest entry."""

    def agree(found, truth, limit):
        for name, x in found.items():
            y = truth[name].double()
            assert x.shape == y.shape, name
            assert x.isfinite().all(), name
            error = ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-300)).item()
            bound = limit[name] if isinstance(limit, dict) else limit
            assert error <= bound, f"{name}: {error:.1e} > {bound:.1e}"

    return agree


@pytest.fixture(scope="session")
def interpreter():
    """`interpreter(what, *arguments)`: run an operator in Triton's interpreter (see interpreter.py)."""
    pytest.importorskip("triton")
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(root / "kernels"), str(root))),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(Path(__file__).with_name("interpreter.py"))]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(what, *arguments, **options):
        pickle.dump((what, arguments, options), process.stdin)
        process.stdin.flush()
        found = pickle.load(process.stdout)
        if isinstance(found, Exception):
            raise found
        return found

    yield ask
    process.terminate()  # the end of its input may not come: forked processes of other tests hold the pipe too
    process.wait(timeout=60)
