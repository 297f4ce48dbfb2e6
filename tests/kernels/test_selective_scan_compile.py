"""In a process of its own: what the tests check types with does not trace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from mmrnn_kernels import selective_scan
from mmrnn_kernels.common.native import build
assert build.load_or_reason.cache_info().misses == 0, "built by an import"
assert not {"triton", "torch._dynamo"} & set(sys.modules)

import torch
from mmrnn_kernels.selective_scan import chunked, cpu

def draw(t, b=2, d=6, s=4):
    shapes = [(b, t, d), (b, t, d), (d, s), (b, t, s), (b, t, s), (b, d, s)]
    x, dt, a, *rest = (torch.randn(shape) for shape in shapes)
    return [one.requires_grad_() for one in (x, dt.exp(), -a.exp(), *rest)]

inputs = draw(19)
plain = [x.detach() for x in inputs]
modules = {"chunked": chunked} | ({} if build.unavailable_reason(cpu.SOURCE) else {"cpu": cpu})
for name, module in modules.items():
    torch.library.opcheck(module.forward, tuple(inputs))
    out, end = module.forward(*plain)
    torch.library.opcheck(module.backward, (*plain, torch.randn_like(out), torch.randn_like(end)))
    if name == "cpu":
        torch.library.opcheck(module.forward, (*plain[:5], None))
        torch.library.opcheck(module.backward, (*plain[:5], None, None, torch.randn_like(end)))
    op = lambda *x: selective_scan(*x, backend=name)
    compiled = torch.compile(op, backend="aot_eager", fullgraph=True)
    for t in (19, 70, 1):
        inputs = draw(t)
        found, truth = ([*f(*inputs)] for f in (compiled, op))
        for values in (found, truth):
            values += torch.autograd.grad([(values[0] ** 2).sum(), (values[1] ** 2).sum()], inputs)
        torch.testing.assert_close(found, truth)
"""


@pytest.mark.slow
def test_opcheck_fullgraph_and_light_import(tmp_path):
    kernels = Path(__file__).parents[2] / "kernels"
    environment = os.environ | {"PYTHONPATH": str(kernels), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
