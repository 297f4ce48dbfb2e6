"""In processes of their own: what the tests check types with does not trace."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmrnn_kernels.common.native import build

DRAW = """
import sys
from mmrnn_kernels import wkv7
from mmrnn_kernels.common.native import build
assert build.load_or_reason.cache_info().misses == 0, "built by an import"
assert not {"triton", "torch._dynamo"} & set(sys.modules)

import torch

def draw(t, b=2, h=2, k=8, v=4):
    shapes = [(b, t, h, k)] * 3 + [(b, t, h, v)] + [(b, t, h, k)] * 2 + [(b, h, k, v)]
    found = [torch.randn(shape) for shape in shapes]
    found[4] = torch.nn.functional.normalize(found[4], dim=-1)
    found[5] = -found[4] * torch.rand(shapes[5])
    return [x.requires_grad_() for x in found]

def check(backend):
    def op(*x):
        return wkv7(*x, backend=backend)
    compiled = torch.compile(op, backend="aot_eager", fullgraph=True)
    for t in (19, 70, 1):
        inputs = draw(t)
        found, truth = ([*f(*inputs)] for f in (compiled, op))
        for values in (found, truth):
            values += torch.autograd.grad([(values[0] ** 2).sum(), (values[1] ** 2).sum()], inputs)
        torch.testing.assert_close(found, truth)

inputs = draw(19)
plain = [x.detach() for x in inputs]
"""

CHUNKED = """
from mmrnn_kernels.wkv7 import chunked
torch.library.opcheck(chunked.forward, (*inputs, 16, True))
torch.library.opcheck(chunked.forward, (*plain, 16, False))
out, end, entries = chunked.forward(*plain, 16, True)
torch.library.opcheck(chunked.backward, (*plain[:6], entries, torch.randn_like(out), torch.randn_like(end), 16))
check("chunked")
"""

CPU = """
from mmrnn_kernels.wkv7 import cpu
for arguments in (inputs, plain, [*inputs[:6], None]):
    torch.library.opcheck(cpu.forward, tuple(arguments))
out, end = cpu.forward(*plain)
torch.library.opcheck(cpu.backward, (*plain, torch.randn_like(out), torch.randn_like(end)))
torch.library.opcheck(cpu.backward, (*plain[:6], None, None, torch.randn_like(end)))
build.load_or_reason.cache_clear()  # so that it is the tracer who asks
check("cpu")
check("auto")
"""


def run(script, folder):
    kernels = Path(__file__).parents[2] / "kernels"
    environment = os.environ | {"PYTHONPATH": str(kernels), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_chunked(tmp_path):
    run(DRAW + CHUNKED, tmp_path)


@pytest.mark.skipif(not any(map(shutil.which, build.COMPILERS)), reason="no C++ compiler")
def test_cpu(tmp_path):
    run(DRAW + CPU, tmp_path)
