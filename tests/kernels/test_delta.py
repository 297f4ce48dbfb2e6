"""The gated delta rule and KDA: against the recurrence of the papers, transformers' and fla's."""

import importlib.util
import inspect
import shutil
from pathlib import Path

import pytest
import torch

from mmrnn_kernels import gated_delta_rule, kda
from mmrnn_kernels.common.native import build

# Logarithms of -g: as in trained models, of everything at once, near zero, near one.
REGIMES = {"model": (-7, 1), "mixed": (-8, 5), "strong": (2, 5), "beyond": (-8, 40), "weak": (-12, -8)}
COMPILER = any(map(shutil.which, build.COMPILERS))
CPU = pytest.param("cpu", marks=pytest.mark.skipif(not COMPILER, reason="no C++ compiler"))
FAST = ("chunked", CPU)
BACKENDS = ("reference", *FAST)
OPS = pytest.mark.parametrize("op", [gated_delta_rule, kda], ids=lambda op: op.__name__)


@OPS
def test_reference_is_what_the_paper_prints(draw, agree, op):
    """Matrices multiplied out: S' = (1 - beta k^T k) diag(alpha) S + beta k^T v."""
    (q, k, v, g, beta, state), _ = draw(op, 2, 7, 2, 4, 3, -3, 1)
    alpha = torch.exp(g if op is kda else g[..., None].expand_as(k))
    out, now = torch.zeros_like(v), state
    for t in range(7):
        removal = torch.eye(4) - beta[:, t, :, None, None] * k[:, t, :, :, None] * k[:, t, :, None]
        now = removal @ torch.diag_embed(alpha[:, t]) @ now
        now = now + beta[:, t, :, None, None] * k[:, t, :, :, None] * v[:, t, :, None]
        out[:, t] = torch.einsum("bhk,bhkv->bhv", q[:, t], now)
    found, end = op(q, k, v, g, beta, state, backend="reference")
    agree({"out": found, "end": end}, {"out": out, "end": now}, 1e-14)


@OPS
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_gradcheck(draw, op, backend):
    inputs, _ = draw(op, 1, 5, 2, 3, 2, -2, 1)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: op(*x, backend=backend), leaves, fast_mode=True)


@OPS
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(("t", "k", "v"), [(1, 16, 32), (100, 64, 64), (63, 16, 32), (15, 5, 7), (257, 16, 16)])
def test_fp32_is_the_reference(draw, run, agree, op, t, k, v, regime):
    inputs, grads = draw(op, 2, t, 2, k, v, *REGIMES[regime], seed=t)
    single = [x.float() for x in inputs]
    truth = run(op, [x.double() for x in single], grads, backend="reference")
    for backend in ("chunked", "cpu") if COMPILER else ("chunked",):
        agree(run(op, single, grads, backend=backend), truth, 1e-6)


@OPS
@pytest.mark.parametrize("t", [1, 65], ids=lambda t: f"t{t}")
@pytest.mark.parametrize("backend", BACKENDS)
def test_decays_of_one_and_of_nothing_have_gradients(draw, run, agree, op, backend, t):
    """g = 0 exactly, where log(-g) would give the gradient NaN; e^-1e30 and e^-inf are nothing."""
    inputs, grads = draw(op, 2, t, 2, 16, 16)
    extremes = torch.tensor([0.0, -1e-30, -1e-9, -1e-3, -25.0, -200.0, -1e30, -torch.inf], dtype=torch.float64)
    choice = torch.randint(len(extremes), inputs[3].shape, generator=torch.Generator().manual_seed(1))
    inputs = [x.float() for x in (*inputs[:3], extremes[choice], *inputs[4:])]
    finite = inputs[3].clamp(min=-1e30).double()
    double = [*(x.double() for x in inputs[:3]), finite, *(x.double() for x in inputs[4:])]
    truth = run(op, double, grads, backend="reference")
    agree(run(op, inputs, grads, backend=backend), truth, 1e-6)
    assert (truth["dw"][inputs[3] == 0] != 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_growing_state_counts_as_a_decay_of_one(draw, run, agree, backend):
    inputs, grads = draw(kda, 1, 20, 1, 8, 8)
    inputs = [x.float() for x in inputs]
    inputs[3] = torch.where(inputs[3] > -0.01, -inputs[3], inputs[3])
    found = run(kda, inputs, grads, backend=backend)
    none = [*inputs[:3], inputs[3].clamp(max=0), *inputs[4:]]
    agree({"out": found["out"]}, {"out": run(kda, none, grads, backend="reference")["out"]}, 1e-6)
    assert (found["dw"][inputs[3] > 0] == 0).all()


@OPS
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)], ids=["bf16", "fp16"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_inputs_are_computed_in_fp32(draw, run, agree, op, backend, dtype, limit):
    """Only what leaves is rounded: the states, which stay fp32, are as exact as from fp32 inputs."""
    inputs, grads = draw(op, 1, 63, 2, 16, 32, -7, 1)
    half = [x.to(dtype) for x in inputs[:5]] + [inputs[5].float()]
    grads = (grads[0].to(dtype), grads[1].float())
    truth = run(op, [x.double() for x in half], grads, backend="reference")
    found = run(op, half, grads, backend=backend)
    assert found["out"].dtype == found["dk"].dtype == found["dw"].dtype == dtype
    assert found["end"].dtype == found["dstate"].dtype == torch.float32
    agree(found, truth, dict.fromkeys(found, limit) | {"end": 1e-6, "dstate": 1e-6})


@OPS
@pytest.mark.parametrize("cut", [1, 64], ids=lambda cut: f"cut{cut}")
@pytest.mark.parametrize("backend", BACKENDS)
def test_state_splits_anywhere(draw, run, agree, op, backend, cut):
    inputs, grads = draw(op, 2, 100, 2, 16, 8, -8, 2)
    inputs = [x.float() for x in inputs]

    def two_parts(*x, backend):
        first, state = op(*(y[:, :cut] for y in x[:5]), x[5], backend=backend)
        second, state = op(*(y[:, cut:] for y in x[:5]), state, backend=backend)
        return torch.cat([first, second], 1), state

    whole = run(op, [x.double() for x in inputs], grads, backend="reference")
    agree(run(two_parts, inputs, grads, backend=backend), whole, 1e-6)


@OPS
@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_is_one_by_one(draw, run, agree, op, backend):
    lengths = (1, 40, 3, 0, 64)
    inputs, (dy, _) = draw(op, 1, sum(lengths), 2, 8, 16, -6, 3)
    (*_, state), (_, end) = draw(op, len(lengths), 1, 2, 8, 16, seed=1)
    inputs, grads = [x.float() for x in (*inputs[:5], state)], (dy, end)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()

    def one_by_one(*x):
        outs, ends = [], []
        for segment, (start, stop) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            before = x[5][segment : segment + 1]
            if stop > start:
                out, before = op(*(y[:, start:stop] for y in x[:5]), before, backend="reference")
                outs.append(out)
            ends.append(before)
        return torch.cat(outs, 1), torch.cat(ends)

    truth = run(one_by_one, [x.double() for x in inputs], grads)
    agree(run(op, inputs, grads, cu_seqlens=bounds, backend=backend), truth, 1e-6)


@OPS
@pytest.mark.parametrize("backend", FAST)
def test_no_state_is_a_state_of_zeros_and_autocast_changes_nothing(draw, run, op, backend):
    inputs, grads = draw(op, 2, 20, 2, 8, 8)
    inputs = [x.float() for x in inputs]
    found, truth = op(*inputs[:5], backend=backend), op(*inputs[:5], 0 * inputs[5], backend=backend)
    assert all(map(torch.equal, found, truth))
    plain = run(op, inputs, grads, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        cast = run(op, inputs, grads, backend=backend)
    assert all(torch.equal(cast[name], plain[name]) for name in plain)


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_the_number_of_threads_changes_nothing(draw, run):
    inputs, grads = draw(gated_delta_rule, 2, 300, 3, 32, 64)
    inputs = [x.float() for x in inputs]
    alone = run(gated_delta_rule, inputs, grads, backend="cpu")
    try:
        torch.set_num_threads(2)
        together = run(gated_delta_rule, inputs, grads, backend="cpu")
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(alone[name], together[name]) for name in alone)


@pytest.mark.parametrize(("op", "value"), [(gated_delta_rule, 64), (kda, 32)], ids=["scalar", "kda"])
def test_triton_is_the_reference(draw, run, agree, interpreter, op, value):
    """Interpreted; values twice as wide as keys take two calls. Compiled kernels are those of WKV-7."""
    lengths = (1, 6, 0, 2)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    (*rows, _), (dy, _) = draw(op, 1, sum(lengths), 1, 32, value, -6, 1)
    (*_, state), (_, end) = draw(op, len(lengths), 1, 1, 32, value, seed=1)
    inputs = [x.float() for x in (*rows, state)]
    inputs[3][:, 2] = 0
    truth = run(op, [x.double() for x in inputs], (dy, end), cu_seqlens=bounds, backend="reference")
    found = interpreter("differentiated", op.__name__, inputs, (dy, end), cu_seqlens=bounds)
    agree(found, truth, 1e-6)


def test_what_it_cannot_take():
    x = torch.zeros(1, 2, 1, 4)
    plain = inspect.unwrap(gated_delta_rule)
    with pytest.raises(ValueError, match=r"^gated_delta_rule: g must be \[b t h\], got \[1, 2, 1, 4\]"):
        plain(x, x, x, x, x[..., 0])
    with pytest.raises(ValueError, match=r"^kda: beta must be \[b t h\], got \[1, 2, 1, 4\]"):
        inspect.unwrap(kda)(x, x, x, x, x)
    with pytest.raises(RuntimeError, match=r"'cpu' cannot run here: it computes in fp32, got torch.float64$"):
        gated_delta_rule(x.double(), x, x, x[..., 0], x[..., 0], backend="cpu")
    with pytest.raises(RuntimeError, match=r"'triton' cannot run here: it needs CUDA tensors, got one on cpu$"):
        gated_delta_rule(x, x, x, x[..., 0], x[..., 0], backend="triton")
    x = x.to("meta")
    assert gated_delta_rule(x, x, x, x[..., 0], x[..., 0])[0].shape == (1, 2, 1, 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_transformers_computes_the_same(golden, agree, backend):
    """Also without decay at one position, and with beta 0 and 1. Values 2e-5, gradients 1e-4."""
    _, case = golden("gated_delta_hf")
    inputs = [case[f"in/{name}"].clone().requires_grad_() for name in ("q", "k", "v", "g", "beta", "state")]
    q, k, v, g, beta, state = inputs
    copies = v.shape[2] // q.shape[2]

    def unit(x):
        return (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)).repeat_interleave(copies, dim=2)

    out, end = gated_delta_rule(unit(q) * q.shape[-1] ** -0.5, unit(k), v, g, beta, state, backend=backend)
    agree({"out": out, "end": end}, {"out": case["out/y"], "end": case["out/state"]}, 2e-5)
    loss = (out * case["in/weights_y"]).sum() + (end * case["in/weights_state"]).sum()
    names = ("q", "k", "v", "g", "beta", "state")
    found = dict(zip(names, torch.autograd.grad(loss, inputs), strict=True))
    agree(found, {name: case[f"grad/{name}"] for name in names}, 1e-4)


@OPS
@pytest.mark.parametrize("backend", BACKENDS)
def test_fla_computes_the_same(draw, agree, op, backend):
    """Another library's recurrences, which scale q."""
    found = importlib.util.find_spec("fla")
    if found is None:
        pytest.skip("flash-linear-attention is not installed")
    folder, name = ("kda", "naive_recurrent_kda") if op is kda else (op.__name__, f"naive_recurrent_{op.__name__}")
    path = Path(found.submodule_search_locations[0], "ops", folder, "naive.py")
    spec = importlib.util.spec_from_file_location("naive", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    q, k, v, g, beta, state = (x.float() for x in draw(op, 2, 33, 3, 16, 32)[0])
    options = {"beta": beta, "g": g, "scale": 1.0, "initial_state": state, "output_final_state": True}
    out, end = getattr(module, name)(q, k, v, **options)
    ours = op(q, k, v, g, beta, state, backend=backend)
    agree(dict(zip(("out", "end"), ours, strict=True)), {"out": out, "end": end}, 1e-6)
