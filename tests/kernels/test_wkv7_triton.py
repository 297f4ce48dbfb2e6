"""The Triton kernels without a GPU: in the interpreter beside the reference in fp64, and compiled ahead of time.

Triton decides at its import whether kernels are compiled, so each question is a process of its own.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

INTERPRETED = """
import sys
import torch, triton
from mmrnn_kernels import wkv7

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
NAMES = ("out", "end", "dr", "dw", "dk", "dv", "da", "db", "dstate")
generator = torch.Generator().manual_seed(0)

def normal(*shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)

def draw(t, low, high, size=32, b=1, h=1, states=None):
    kappa = torch.nn.functional.normalize(normal(b, t, h, size), dim=-1)
    rate, w = (torch.rand(b, t, h, size, generator=generator, dtype=torch.float64) for _ in range(2))
    rows = [normal(b, t, h, size), w * (high - low) + low, normal(b, t, h, size), normal(b, t, h, size)]
    state = normal(states or b, h, size, size)
    return [*rows, -kappa, kappa * rate, state], (normal(b, t, h, size), torch.randn_like(state))

def run(inputs, grads, **options):
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = wkv7(*leaves, **options)
    found = torch.autograd.grad(outputs, leaves, [g.to(y.dtype) for g, y in zip(grads, outputs)])
    return [*outputs, *found]

def check(inputs, grads, limit, **options):
    truth = run([x.double() for x in inputs], grads, backend="reference", **options)
    found = run(inputs, grads, backend="triton", **options)
    for name, x, y in zip(NAMES, found, truth):
        assert x.isfinite().all(), name
        error = ((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-300)).item()
        assert error <= limit, f"{name}: {error:.1e} > {limit:.1e}"

def single(inputs):
    return [x.float() for x in inputs]
"""

PACKED = """
lengths = (1, 17, 1, 0, 5)
i, g = draw(sum(lengths), -6, 3, states=len(lengths))
check(single(i), g, 1e-6, cu_seqlens=torch.tensor([0, *lengths]).cumsum(0))
"""

SLOW = {
    "model": "for t in (1, 15, 40): i, g = draw(t, -8, -0.5); check(single(i), g, 1e-6)",
    "mixed": "for t in (15, 63): i, g = draw(t, -8, 5); check(single(i), g, 1e-6)",
    "bf16": """
i, g = draw(20, -8, -0.5)
check([x.bfloat16() for x in i[:6]] + [i[6].float()], g, 2e-2)
""",
    # One position of strong decays: exp(-exp(w)) in fp32 is no better.
    "strong": "for t in (1, 63): i, g = draw(t, 2, 5); check(single(i), g, 2e-6)",
    "weak": "for t in (63, 100): i, g = draw(t, -8, -6); check(single(i), g, 1e-6)",
    "long": "i, g = draw(257, -8, -0.5); check(single(i), g, 1e-6)",
    "sizes": "i, g = draw(20, -8, 5, size=64, b=2, h=2); check(single(i), g, 1e-6)",
    "opcheck": """
from mmrnn_kernels.wkv7.triton import ops
i, g = draw(20, -8, -0.5)
plain, bounds = single(i), torch.tensor([0, 7, 20])
torch.use_deterministic_algorithms(False)
leaves = [x.detach().clone().requires_grad_() for x in plain]
torch.library.opcheck(ops.forward, (*leaves, None))
torch.library.opcheck(ops.forward, (*plain[:6], None, bounds))
torch.library.opcheck(ops.backward, (*plain, None, *(x.float() for x in g)))
torch.library.opcheck(ops.backward, (*plain[:6], None, None, None, g[1].float()))
""",
}

COMPILED = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mmrnn_kernels.wkv7.triton import ops
from mmrnn_kernels.wkv7.triton.backward import backward_kernel
from mmrnn_kernels.wkv7.triton.forward import forward_kernel

ROWS = ("r", "w", "k", "v", "a", "b", "dout", "out", "dr", "dw", "dk", "dv", "da", "db")

def shared(function, target, states=False):
    mode = ops.compiled({torch.bfloat16}, target.backend)
    known = {"H": 12, "K": 64, "V": 64, "BV": 32, "C": 16, "LEVELS": 4, "PREC": mode.precision, "FULL": mode.full}
    known |= {"TARGET": mode.target, "PACKED": False, "START": True, "STATES": states, "END": True, "bounds": None}
    known |= {"out": None, "end": None} if states else {"states": None} if function is forward_kernel else {}
    names = function.arg_names
    known = {name: value for name, value in known.items() if name in names}
    types = {"length": "i32"} | dict.fromkeys(ROWS, "*bf16")
    signature = {name: "constexpr" if name in known else types.get(name, "*fp32") for name in names}
    source = ASTSource(function, signature, constexprs=known)
    options = {"num_warps": 8 if function is backward_kernel else 4, "num_stages": 1}
    return triton.compile(source, target=target, options=options).metadata.shared

for target in (GPUTarget("cuda", 80, 32), GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)):
    for kernel, states in ((forward_kernel, False), (forward_kernel, True), (backward_kernel, False)):
        found = shared(kernel, target, states)
        assert found <= 48 * 1024, (target, found)
"""


def ask(script, folder, interpreter):
    kernels = Path(__file__).parents[2] / "kernels"
    environment = os.environ | {"PYTHONPATH": str(kernels), "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": interpreter}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_packed_rows_are_the_reference(tmp_path):
    ask(INTERPRETED + PACKED, tmp_path, "1")


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW)
def test_is_the_reference_in_every_regime(case, tmp_path):
    ask(INTERPRETED + SLOW[case], tmp_path, "1")


@pytest.mark.slow
def test_compiles_for_real_targets(tmp_path):
    ask(COMPILED, tmp_path, "0")
