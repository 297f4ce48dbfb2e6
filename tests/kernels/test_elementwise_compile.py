"""In a process of its own: what the tests check types with does not trace."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmrnn_kernels.common.native import build

SCRIPT = """
import sys
from mmrnn_kernels import lerp, norm_gate, relu_square, sigmoid_gate
from mmrnn_kernels.common.native import build
assert build.load_or_reason.cache_info().misses == 0, "built by an import"
assert "torch._dynamo" not in sys.modules

import torch
from mmrnn_kernels.elementwise import cpu_gates, cpu_lerp

def draw(*shape):
    return torch.randn(shape, requires_grad=True)

x, previous, weights, offsets = draw(2, 3, 20), draw(2, 3, 20), draw(3, 20), draw(3, 2, 3, 20)
heads, weight, bias = draw(2, 3, 4, 5), draw(20), draw(20)
check = torch.library.opcheck
last, starts = draw(2, 20), torch.tensor([[0, 1, 0], [1, 0, 0]]).bool()
check(cpu_lerp.lerp, (x, previous, weights, offsets, None))
check(cpu_lerp.lerp, (x, last, weights, None, starts))
check(cpu_gates.relu_square, (x,))
check(cpu_gates.sigmoid_gate, (x, previous))
check(cpu_gates.norm_gate, (heads, x, weight, bias, 1e-5))
plain = [y.detach() for y in (x, previous, last, weights, offsets, heads, weight, bias)]
a, b, c, w, o, h, u, v = plain
check(cpu_lerp.lerp_backward, (a, b, w, o, None, [a, None, b]))
check(cpu_lerp.lerp_backward, (a, c, w, None, starts, [None, b, a]))
check(cpu_gates.relu_square_backward, (a, b))
check(cpu_gates.sigmoid_gate_backward, (a, b, a))
check(cpu_gates.norm_gate_backward, (h, a, u, v, 1e-5, b))

def all_of_it(x, previous, weights, offsets, heads, weight, bias):
    first, _, last = lerp(x, previous, weights, offsets, backend="cpu")
    (only,) = lerp(x, last[:, 0], weights[:1], backend="cpu")
    square = relu_square(first, backend="cpu")
    return norm_gate(heads, square, weight, bias, 1e-5, backend="cpu") + sigmoid_gate(only, last, backend="cpu")

build.load_or_reason.cache_clear()  # so that it is the tracer who asks
compiled = torch.compile(all_of_it, backend="aot_eager", fullgraph=True)
for t in (3, 7, 1):
    inputs = draw(2, t, 20), draw(2, t, 20), draw(3, 20), draw(3, 2, t, 20), draw(2, t, 4, 5), draw(20), draw(20)
    found, truth = ([f(*inputs)] for f in (compiled, all_of_it))
    for values in (found, truth):
        values += torch.autograd.grad((values[0] ** 2).sum(), inputs)
    torch.testing.assert_close(found, truth)
"""


@pytest.mark.skipif(not any(map(shutil.which, build.COMPILERS)), reason="no C++ compiler")
@pytest.mark.slow
def test_opcheck_and_fullgraph(tmp_path):
    kernels = Path(__file__).parents[2] / "kernels"
    environment = os.environ | {"PYTHONPATH": str(kernels), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
