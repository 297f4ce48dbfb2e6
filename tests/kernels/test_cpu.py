"""The native backend: what it computes. How it is built: test_cpu_build.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint

from mmrnn_kernels import wkv5, wkv6
from mmrnn_kernels.common.native import build

OPS = {"wkv5": wkv5, "wkv6": wkv6}
REGIMES = {"mixed": (-8, 5), "strong": (2, 5), "beyond": (-8, 40), "weak": (-8, -6), "typical": (-7, -1)}
LENGTHS = (1, 2, 15, 16, 17, 64, 100, 257)
SIZES = {"k16": (16, 16), "k32": (32, 32), "k64": (64, 64), "k32-v64": (32, 64), "k5-v7": (5, 7), "k80-v24": (80, 24)}
KERNELS = Path(__file__).parents[2] / "kernels"

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, build.COMPILERS)), reason=f"no C++ compiler ({', '.join(build.COMPILERS)})"
)


def single(inputs):
    return [x.float() for x in inputs]


def double(inputs):
    return [x.double() for x in inputs]


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("t", LENGTHS, ids=lambda t: f"t{t}")
def test_is_the_reference(draw, run, agree, t, size, regime):
    inputs, grads = draw(wkv6, 2, t, 2, *SIZES[size], *REGIMES[regime], seed=t)
    inputs = single(inputs)
    truth = run(wkv6, double(inputs), grads, backend="reference")
    agree(run(wkv6, inputs, grads, backend="cpu"), truth, 1e-6)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("t", LENGTHS, ids=lambda t: f"t{t}")
def test_one_decay_for_all_positions(draw, run, agree, t, regime):
    """The rounding of the decay is the same at every position, and must not add up."""
    inputs, grads = draw(wkv5, 2, t, 2, 32, 64, *REGIMES[regime], seed=t)
    inputs = single(inputs)
    truth = run(wkv5, double(inputs), grads, backend="reference")
    agree(run(wkv5, inputs, grads, backend="cpu"), truth, 1e-6)


@pytest.mark.parametrize("name", OPS)
def test_a_long_sequence_with_weak_decays(draw, run, agree, name):
    inputs, grads = draw(OPS[name], 1, 2000, 1, 16, 16, -9, -7)
    inputs = single(inputs)
    truth = run(OPS[name], double(inputs), grads, backend="reference")
    agree(run(OPS[name], inputs, grads, backend="cpu"), truth, 2e-6)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("t", [1, 17, 80], ids=lambda t: f"t{t}")
def test_any_decay_is_finite(draw, run, agree, t, name):
    inputs, grads = draw(OPS[name], 2, t, 2, 16, 16)
    extremes = torch.tensor([500.0, 90.0, 10.0, 5.0, 4.0, 3.0, 0.0, -20.0, -200.0, -torch.inf], dtype=torch.float64)
    choice = torch.randint(len(extremes), inputs[3].shape, generator=torch.Generator().manual_seed(1))
    inputs = single([*inputs[:3], extremes[choice], *inputs[4:]])
    truth = run(OPS[name], double(inputs), grads, backend="reference")
    agree(run(OPS[name], inputs, grads, backend="cpu"), truth, 1e-6)


def test_not_a_number_is_not_hidden(draw):
    inputs, _ = draw(wkv6, 1, 20, 1, 16, 16)
    inputs = single(inputs)
    inputs[3][0, 3, 0, 2] = torch.nan
    out, end = wkv6(*inputs, backend="cpu")
    assert out[:, :4].isfinite().all()
    assert out[:, 4:].isnan().all()
    assert end[0, 0, 2].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", OPS)
def test_half_inputs_are_computed_in_fp32(draw, run, agree, name, dtype):
    inputs, grads = draw(OPS[name], 2, 40, 2, 16, 16)
    half = [x.to(dtype) for x in inputs[:5]] + [inputs[5].float()]
    grads = (grads[0].to(dtype), grads[1].float())
    truth = run(OPS[name], double(half), grads, backend="reference")
    found = run(OPS[name], half, grads, backend="cpu")
    assert found["out"].dtype == found["dw"].dtype == found["du"].dtype == dtype
    assert found["end"].dtype == found["dstate"].dtype == torch.float32
    rounding = torch.finfo(dtype).eps
    agree(found, truth, dict.fromkeys(found, rounding) | {"end": 1e-6, "dstate": 1e-6})


@pytest.mark.parametrize("used", ["out", "end"])
@pytest.mark.parametrize("name", OPS)
def test_only_one_output_is_used_and_no_state_given(draw, agree, name, used):
    inputs, grads = draw(OPS[name], 2, 40, 2, 16, 8)
    which = ("out", "end").index(used)
    found, truth = (
        torch.autograd.grad(OPS[name](*leaves, backend=backend)[which], leaves, grad, allow_unused=True)
        for backend, leaves, grad in (
            ("cpu", [x.float().requires_grad_() for x in inputs[:5]], grads[which].float()),
            ("reference", [x.float().double().requires_grad_() for x in inputs[:5]], grads[which].float().double()),
        )
    )
    for name, x, y in zip(("dr", "dk", "dv", "dw", "du"), found, truth, strict=True):
        agree({name: x}, {name: torch.zeros_like(x) if y is None else y}, 1e-6)


@pytest.mark.parametrize("t", [1, 70], ids=lambda t: f"t{t}")
def test_inputs_may_lie_anyhow(draw, run, t):
    inputs, grads = draw(wkv6, 2, t, 3, 16, 16)
    inputs = single(inputs)

    def op(r, k, v, w, u, state):
        r = torch.stack([r, r], -1)[..., 0]  # no entry beside the next
        k = k.transpose(1, 2).contiguous().transpose(1, 2)
        v = torch.cat([v, v], 1)[:, :t]
        return wkv6(r, k, v, w, u, state.mT.contiguous().mT, backend="cpu")

    plain, odd = run(wkv6, inputs, grads, backend="cpu"), run(op, inputs, grads)
    assert all(torch.equal(plain[name], odd[name]) for name in plain)


@pytest.mark.parametrize("name", OPS)
def test_threads_change_nothing(draw, run, name):
    inputs, grads = draw(OPS[name], 5, 200, 3, 32, 64)
    inputs, before = single(inputs), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run(OPS[name], inputs, grads, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][name], other[name]) for other in found[1:] for name in other)


@pytest.mark.parametrize("name", OPS)
def test_packed_is_one_by_one(draw, run, agree, name):
    op, lengths = OPS[name], (1, 130, 3, 1, 2, 64, 65)
    (r, k, v, w, u, _), (dy, _) = draw(op, 1, sum(lengths), 2, 8, 16, -6, 3)
    (*_, state), (_, end) = draw(op, len(lengths), 1, 2, 8, 16, seed=1)
    inputs, bounds = single((r, k, v, w, u, state)), torch.tensor([0, *lengths]).cumsum(0)
    truth = run(op, double(inputs), (dy, end), cu_seqlens=bounds, backend="reference")
    agree(run(op, inputs, (dy, end), cu_seqlens=bounds, backend="cpu"), truth, 1e-6)


def test_kept_for_the_backward_pass_are_the_inputs(draw):
    inputs, _ = draw(wkv6, 1, 40, 2, 16, 16)
    inputs, kept = single(inputs), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda _: None):
        wkv6(*inputs, backend="cpu")
        assert kept == []
        wkv6(*(x.requires_grad_() for x in inputs), backend="cpu")
    assert sum(kept) == sum(x.numel() for x in inputs)


def test_inside_a_checkpoint(draw, run):
    inputs, grads = draw(wkv6, 1, 40, 2, 16, 16)
    inputs = single(inputs)

    def op(*x):
        return torch.utils.checkpoint.checkpoint(lambda *y: wkv6(*y, backend="cpu"), *x, use_reentrant=False)

    plain, again = run(wkv6, inputs, grads, backend="cpu"), run(op, inputs, grads)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_what_it_cannot_take():
    x = torch.zeros(1, 2, 1, 4)
    u = x[0, 0]
    with pytest.raises(RuntimeError, match=r"'cpu' cannot run here: it computes in fp32, got torch.float64$"):
        wkv6(x.double(), x, x, x, u, backend="cpu")
    x = x.to("meta")
    with pytest.raises(RuntimeError, match=r"'cpu' cannot run here: it needs CPU tensors, got one on meta$"):
        wkv6(x, x, x, x, x[0, 0], backend="cpu")
    assert wkv6(x, x, x, x, x[0, 0])[0].shape == (1, 2, 1, 4)


# In a process of its own: what the tests check types with does not trace.
TRACED = """
import sys
from mmrnn_kernels import wkv5, wkv6
from mmrnn_kernels.common.native import build
assert build.load_or_reason.cache_info().misses == 0, "built by an import"
assert "torch._dynamo" not in sys.modules

import torch
from mmrnn_kernels.wkv6 import cpu

def draw(t, b=2, h=2, k=8, v=4):
    shapes = [(b, t, h, k), (b, t, h, k), (b, t, h, v), (b, t, h, k), (h, k), (b, h, k, v)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]

inputs = draw(19)
plain = [x.detach() for x in inputs]
constant = [*plain[:3], plain[3][0, 0].clone(), plain[4]]
for arguments in (inputs, plain, [*inputs[:5], None], [*constant, plain[5]]):
    torch.library.opcheck(cpu.forward, tuple(arguments))
out, end = cpu.forward(*plain)
torch.library.opcheck(cpu.backward, (*plain, torch.randn_like(out), torch.randn_like(end)))
torch.library.opcheck(cpu.backward, (*constant, None, None, torch.randn_like(end)))

def repeated(r, k, v, w, u, state, backend):
    return wkv5(r, k, v, w[0, 0], u, state, backend=backend)

build.load_or_reason.cache_clear()  # so that it is the tracer who asks
for op in (lambda *x, backend: wkv6(*x, backend=backend), repeated):
    for backend in ("auto", "cpu"):
        compiled = torch.compile(op, backend="aot_eager", fullgraph=True)
        for t in (19, 70, 1):
            inputs = draw(t)
            found, truth = ([*f(*inputs, backend=backend)] for f in (compiled, op))
            for values in (found, truth):
                values += torch.autograd.grad([(values[0] ** 2).sum(), (values[1] ** 2).sum()], inputs)
            torch.testing.assert_close(found, truth)
"""


@pytest.mark.slow
def test_opcheck_and_fullgraph(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(KERNELS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRACED], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
