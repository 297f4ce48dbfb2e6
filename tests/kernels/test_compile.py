"""In a process of its own: what the tests check types with does not trace."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import mmrnn_kernels
heavy = {"triton", "mmrnn", "transformers", "fla", "hydra"} & set(sys.modules)
assert not heavy, heavy

import torch
from mmrnn_kernels import wkv5, wkv6
from mmrnn_kernels.wkv6.chunked import backward, forward

def draw(t, b=2, h=2, k=8, v=4):
    shapes = [(b, t, h, k), (b, t, h, k), (b, t, h, v), (b, t, h, k), (h, k), (b, h, k, v)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]

inputs = draw(19)
torch.library.opcheck(forward, (*inputs, 16, True))
plain = [x.detach() for x in inputs]
torch.library.opcheck(forward, (*plain, 16, False))
out, end, entries = forward(*plain, 16, True)
torch.library.opcheck(backward, (*plain[:5], entries, torch.randn_like(out), torch.randn_like(end), 16))

def chunked(*inputs):
    return wkv6(*inputs, backend="chunked")

def repeated(r, k, v, w, u, state):
    return wkv5(r, k, v, w[0, 0], u, state, backend="chunked")

for op in (chunked, repeated):
    compiled = torch.compile(op, backend="aot_eager", fullgraph=True)
    for t in (19, 70, 1):
        inputs = draw(t)
        found, truth = ([*f(*inputs)] for f in (compiled, op))
        for values in (found, truth):
            values += torch.autograd.grad([(values[0] ** 2).sum(), (values[1] ** 2).sum()], inputs)
        torch.testing.assert_close(found, truth)
"""


def test_opcheck_fullgraph_and_light_import(tmp_path):
    kernels = Path(__file__).parents[2] / "kernels"
    environment = os.environ | {"PYTHONPATH": str(kernels), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
