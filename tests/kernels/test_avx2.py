"""All native code built for x86-64-v3 (AVX2 without AVX-512), with torch and oneDNN held to AVX2 as well."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmrnn_kernels.common.native import build

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="no x86-64"),
    pytest.mark.skipif(not any(map(shutil.which, build.COMPILERS)), reason="no C++ compiler"),
]

SCRIPT = """
import torch
from mmrnn_kernels.common.native import build

build.OPTIONAL_FLAGS = (("-march=x86-64-v3", "-fopenmp"), ("-march=x86-64-v3",))
chosen = []

from mmrnn.backbones import RWKV5, RWKV6, native_decode, rwkv
from mmrnn.types import Sequence
from mmrnn_kernels import decode_step, elementwise, linear, lerp, norm_gate, relu_square, selective_scan
from mmrnn_kernels import sigmoid_gate, wkv5, wkv6, wkv7
from mmrnn_kernels.selective_scan import OPERATOR as SCAN
from mmrnn_kernels.wkv5 import OPERATOR as WKV5
from mmrnn_kernels.wkv6 import OPERATOR as WKV6
from mmrnn_kernels.wkv7 import OPERATOR as WKV7

assert torch.backends.cpu.get_cpu_capability() == "AVX2"
elementwise.MIN_NATIVE_ELEMENTS = 0
torch.manual_seed(0)

def watch(operator):
    def watched(name, run):
        return lambda *inputs: chosen.append(name) or run(*inputs)
    for name, run in operator.implementations.items():
        operator.implementations[name] = watched(name, run)

for operator in (WKV5.operator, WKV6.operator, WKV7.operator, SCAN.operator):
    watch(operator)
for name in ("LERP", "RELU_SQUARE", "SIGMOID_GATE", "NORM_GATE"):
    watch(getattr(elementwise, name))

TIMED, HEADS, STATE, WIDE = (2, 40, 2, 16), (2, 16), (2, 2, 16, 16), (2, 40, 32)
OPS = {
    wkv5: [TIMED, TIMED, TIMED, HEADS, HEADS, STATE],
    wkv6: [TIMED, TIMED, TIMED, TIMED, HEADS, STATE],
    wkv7: [TIMED] * 6 + [STATE],
    selective_scan: [WIDE, WIDE, (32, 4), (2, 40, 4), (2, 40, 4), (2, 32, 4)],
    lerp: [WIDE, (2, 32), (3, 32), (3, *WIDE)],
    relu_square: [WIDE],
    sigmoid_gate: [WIDE, WIDE],
    norm_gate: [TIMED, WIDE, (32,), (32,)],
}

def results(op, inputs, backend):
    extra = (1e-5,) if op is norm_gate else ()
    inputs = [x.detach().requires_grad_() for x in inputs]
    found = op(*inputs, *extra, backend=backend)
    found = [found] if isinstance(found, torch.Tensor) else [*found]
    return [*found, *torch.autograd.grad(sum(x.double().square().sum() for x in found), inputs)]

for op, shapes in OPS.items():
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        inputs = [(0.3 * torch.randn(shape)).to(dtype) for shape in shapes]
        if op is selective_scan:  # steps are positive, rates negative
            inputs[1], inputs[2] = inputs[1].abs(), -inputs[2].abs()
        chosen.clear()
        found = results(op, inputs, "auto")
        print(f"{op.__name__} {dtype}: {chosen[0]}")
        assert chosen == ["cpu"], chosen
        for x, y in zip(found, results(op, [x.double() for x in inputs], "reference"), strict=True):
            assert (x - y).abs().max() <= tolerance * y.abs().max(), (op.__name__, dtype)

with torch.no_grad():
    for model in (RWKV5, RWKV6):
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 5e-2)):
            network = model(vocab=16, width=32, depth=2, head_size=16).eval()
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
            network, token = network.to(dtype), Sequence(torch.tensor([[1], [2]]))
            _, state = network(Sequence(torch.tensor([[1, 2, 3], [4, 5, 6]])))
            assert rwkv.native_decode_step(network, network.embed(token.ids), state) is not None
            hidden, _ = network(token, state)
            native_decode.max_rows, plain = lambda _: 0, native_decode.max_rows
            truth, _ = network(token, state)
            native_decode.max_rows = plain
            assert (hidden - truth).abs().max() <= tolerance * truth.abs().max(), (model, dtype)
            print(f"one token, {model.__name__} {dtype}: native step up to {plain(dtype)} rows")
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        for rows in (1, 8, 40, 200):
            x, weight, kept = torch.randn(rows, 64).to(dtype), torch.randn(32, 64).to(dtype), linear.PackedWeight()
            truth = x.double() @ weight.double().T
            for found in (linear.linear(x, weight), linear.linear(x, weight, None, kept)):
                assert (found - truth).abs().max() <= tolerance * truth.abs().max(), (rows, dtype)
        codes, scales = torch.randint(-128, 128, (32, 64), dtype=torch.int8), torch.rand(32)
        truth = x[:5].double() @ (codes.double() * scales.double()[:, None]).T
        assert (linear.codes_linear(x[:5], codes, scales) - truth).abs().max() <= tolerance * truth.abs().max(), dtype
        print(f"linear {dtype}: packed is", kept.entry is not None, "can_pack is", linear.can_pack(dtype))
        assert kept.entry is None or linear.can_pack(dtype)
"""


def test_every_kernel(tmp_path):
    """Run with `-s` to read what was chosen."""
    limits = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "XDG_CACHE_HOME": str(tmp_path)}
    path = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    environment = os.environ | limits | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    built = {path.name.partition("-")[0] for path in (tmp_path / "mmrnn").iterdir()}
    assert len(built) == len([*(ROOT / "kernels").rglob("*.cpp")]), "every source was built with these flags"
