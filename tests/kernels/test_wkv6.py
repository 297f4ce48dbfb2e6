import importlib.util
from pathlib import Path

import pytest
import torch

from mmrnn_kernels import wkv6

# Decays of everything at once, near zero, near one (a state remembers a thousand positions), and as in trained models.
REGIMES = {"mixed": (-8, 5), "strong": (2, 5), "beyond": (-8, 40), "weak": (-8, -6), "typical": (-7, -1)}
LENGTHS = (1, 2, 15, 63, 64, 65, 100, 257)
SIZES = {"k16": (16, 16), "k64": (64, 64), "k32-v64": (32, 64)}
BACKENDS = ("reference", "chunked")


def test_reference_is_what_the_paper_prints(draw, agree):
    """The sum over the past, written out: y_t = r_t (diag(u) k_t^T v_t + sum_s prod_{s<j<t} decay_j k_s^T v_s)."""
    (r, k, v, w, u, state), _ = draw(wkv6, 2, 7, 2, 4, 3)
    decay = torch.exp(-torch.exp(w))
    out = torch.zeros_like(v)
    for t in range(7):
        past = decay[:, :t].prod(1)[..., None] * state
        for s in range(t):
            past = past + (decay[:, s + 1 : t].prod(1) * k[:, s])[..., None] * v[:, s, :, None]
        past = past + (u * k[:, t])[..., None] * v[:, t, :, None]
        out[:, t] = torch.einsum("bhk,bhkv->bhv", r[:, t], past)
    found, _ = wkv6(r, k, v, w, u, state, backend="reference")
    agree({"out": found}, {"out": out}, 1e-14)


def test_gradients_of_the_reference_are_the_written_ones(draw, run, agree):
    """The backward equations of the README, position by position."""
    inputs, (dy, end) = draw(wkv6, 2, 9, 3, 5, 4, -3, 1)
    r, k, v, w, u, state = inputs
    decay = torch.exp(-torch.exp(w))[..., None]
    states = [state]
    for t in range(9):
        states.append(decay[:, t] * states[t] + k[:, t, ..., None] * v[:, t, :, None])
    dr, dk, dv, dw, du = (torch.zeros_like(x) for x in (r, k, v, w, u))
    g = end  # the gradient of the state after position t
    for t in reversed(range(9)):
        shared = (v[:, t] * dy[:, t]).sum(-1, keepdim=True)
        dr[:, t] = torch.einsum("bhkv,bhv->bhk", states[t], dy[:, t]) + u * k[:, t] * shared
        dk[:, t] = torch.einsum("bhkv,bhv->bhk", g, v[:, t]) + u * r[:, t] * shared
        dv[:, t] = torch.einsum("bhkv,bhk->bhv", g, k[:, t]) + (r[:, t] * u * k[:, t]).sum(-1, keepdim=True) * dy[:, t]
        du += (r[:, t] * k[:, t] * shared).sum(0)
        dw[:, t] = -torch.exp(w[:, t]) * decay[:, t, ..., 0] * (g * states[t]).sum(-1)
        g = decay[:, t] * g + r[:, t, ..., None] * dy[:, t, :, None]
    truth = {"out": None, "end": states[-1], "dr": dr, "dk": dk, "dv": dv, "dw": dw, "du": du, "dstate": g}
    found = run(wkv6, inputs, (dy, end), backend="reference")
    del found["out"]
    agree(found, truth, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(draw, backend):
    inputs, _ = draw(wkv6, 1, 5, 2, 3, 2, -2, 1)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: wkv6(*x, backend=backend), leaves)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("t", LENGTHS, ids=lambda t: f"t{t}")
def test_chunked_is_the_reference_fp32(draw, run, agree, t, size, regime):
    inputs, grads = draw(wkv6, 2, t, 2, *SIZES[size], *REGIMES[regime], seed=t)
    single = [x.float() for x in inputs]
    truth = run(wkv6, [x.double() for x in single], grads, backend="reference")
    agree(run(wkv6, single, grads, backend="chunked"), truth, 1e-6)


@pytest.mark.parametrize("t", [2, 65], ids=lambda t: f"t{t}")
def test_chunked_is_the_reference_fp64(draw, run, agree, t):
    inputs, grads = draw(wkv6, 2, t, 3, 8, 8, -8, 5)
    truth = run(wkv6, inputs, grads, backend="reference")
    found = run(wkv6, inputs, grads, backend="chunked")
    assert {x.dtype for x in found.values()} == {torch.float64}
    agree(found, truth, 1e-13)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)], ids=["bf16", "fp16"])
@pytest.mark.parametrize("t", LENGTHS, ids=lambda t: f"t{t}")
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_inputs_are_computed_in_fp32(draw, run, agree, backend, t, dtype, limit):
    """Only what leaves is rounded: the states, which stay fp32, are as exact as from fp32 inputs."""
    inputs, grads = draw(wkv6, 1, t, 2, 16, 16, -7, -1, seed=t)
    half = [x.to(dtype) for x in inputs[:5]] + [inputs[5].float()]
    grads = (grads[0].to(dtype), grads[1].float())
    truth = run(wkv6, [x.double() for x in half], grads, backend="reference")
    found = run(wkv6, half, grads, backend=backend)
    assert found["out"].dtype == found["dw"].dtype == found["du"].dtype == dtype
    assert found["end"].dtype == found["dstate"].dtype == torch.float32
    agree(found, truth, dict.fromkeys(found, limit) | {"end": 1e-6, "dstate": 1e-6})


@pytest.mark.parametrize("t", [1, 40, 70], ids=lambda t: f"t{t}")
def test_autocast_changes_nothing(draw, run, t):
    inputs, grads = draw(wkv6, 1, t, 2, 16, 16)
    inputs = [x.float() for x in inputs]
    plain = run(wkv6, inputs, grads, backend="chunked")
    with torch.autocast("cpu", torch.bfloat16):
        cast = run(wkv6, inputs, grads, backend="chunked")
    assert all(torch.equal(cast[name], plain[name]) for name in plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=("fp32", "fp64"))
@pytest.mark.parametrize("t", [1, 17, 80], ids=lambda t: f"t{t}")
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_decay_is_finite(draw, run, agree, backend, t, dtype):
    """exp(-148) is 0 in fp32, exp(500) is infinite, a pre-activation of -inf is a decay of exactly one."""
    inputs, grads = draw(wkv6, 2, t, 2, 16, 16)
    extremes = torch.tensor([500.0, 90.0, 10.0, 5.0, 4.0, 3.0, 0.0, -20.0, -200.0, -torch.inf], dtype=torch.float64)
    choice = torch.randint(len(extremes), inputs[3].shape, generator=torch.Generator().manual_seed(1))
    inputs = [x.to(dtype) for x in (*inputs[:3], extremes[choice], *inputs[4:])]
    truth = run(wkv6, [x.double() for x in inputs], grads, backend="reference")
    agree(run(wkv6, inputs, grads, backend=backend), truth, 1e-6 if dtype == torch.float32 else 1e-13)


def test_a_decay_of_zero_forgets_everything(draw):
    (r, k, v, w, u, state), _ = draw(wkv6, 1, 80, 1, 16, 16)
    w[:, 40] = 90.0
    _, end = wkv6(r, k, v, w, u, state)
    _, late = wkv6(r[:, 40:], k[:, 40:], v[:, 40:], w[:, 40:], u)
    torch.testing.assert_close(end, late, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("cut", [1, 15, 64, 99], ids=lambda cut: f"cut{cut}")
@pytest.mark.parametrize("backend", BACKENDS)
def test_state_splits_anywhere(draw, run, agree, backend, cut):
    inputs, grads = draw(wkv6, 2, 100, 2, 16, 8, -8, 2)

    def two_parts(r, k, v, w, u, state, backend):
        first, state = wkv6(*(x[:, :cut] for x in (r, k, v, w)), u, state, backend=backend)
        second, state = wkv6(*(x[:, cut:] for x in (r, k, v, w)), u, state, backend=backend)
        return torch.cat([first, second], 1), state

    whole = run(wkv6, inputs, grads, backend=backend)
    agree(run(two_parts, inputs, grads, backend=backend), whole, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_state_is_a_state_of_zeros(draw, backend):
    (r, k, v, w, u, state), _ = draw(wkv6, 2, 20, 2, 8, 8)
    assert all(
        torch.equal(x, y)
        for x, y in zip(
            wkv6(r, k, v, w, u, backend=backend), wkv6(r, k, v, w, u, 0 * state, backend=backend), strict=True
        )
    )


@pytest.mark.parametrize("t", [1, 70], ids=lambda t: f"t{t}")
def test_inputs_may_lie_anyhow_and_are_left_alone(draw, run, agree, t):
    inputs, grads = draw(wkv6, 2, t, 3, 16, 16)
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    assert not turned[0].is_contiguous()
    before = [x.clone() for x in turned]

    def op(*x):
        return wkv6(*(y.transpose(0, -1).contiguous().transpose(0, -1) for y in x))

    agree(run(op, inputs, grads), run(wkv6, inputs, grads), 1e-14)
    wkv6(*turned)
    assert all(torch.equal(x, y) for x, y in zip(turned, before, strict=True))


def test_many_rows_and_heads_are_the_same_as_one(draw):
    """Tiles take several rows, several heads or pieces of time; odd numbers leave remainders of each."""
    (r, k, v, w, u, state), _ = draw(wkv6, 5, 600, 7, 16, 16)
    out, end = wkv6(r, k, v, w, u, state)
    for row, head in ((0, 0), (4, 6), (2, 3)):
        b, h = slice(row, row + 1), slice(head, head + 1)
        alone = wkv6(*(x[b, :, h] for x in (r, k, v, w)), u[h], state[b, h])
        torch.testing.assert_close((out[b, :, h], end[b, h]), alone, rtol=1e-12, atol=1e-12)


def test_memory_for_the_backward_pass(draw):
    """Kept are the inputs and one state a chunk; without gradients nothing."""
    inputs, _ = draw(wkv6, 2, 640, 2, 16, 16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda _: None):
        wkv6(*inputs)
        assert kept == []
        leaves = [x.requires_grad_() for x in inputs]
        wkv6(*leaves)
    assert sum(kept) <= sum(x.numel() for x in inputs[:5]) + 2 * 2 * 10 * 16 * 16


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("t", [1, 33, 100], ids=lambda t: f"t{t}")
def test_fla_computes_the_same(draw, agree, backend, t):
    """Another library's recurrence, `b h t k`, which wants the log-decay and would scale r."""
    found = importlib.util.find_spec("fla")
    if found is None:
        pytest.skip("flash-linear-attention is not installed")
    # By its path: importing the package takes ten seconds and this file needs only torch.
    path = Path(found.submodule_search_locations[0], "ops", "rwkv6", "recurrent_naive.py")
    spec = importlib.util.spec_from_file_location("recurrent_naive", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    (r, k, v, w, u, state), _ = draw(wkv6, 2, t, 3, 16, 16, -8, 5)
    r, k, v, w, u, state = (x.float() for x in (r, k, v, w, u, state))
    swapped = [x.transpose(1, 2) for x in (r, k, v, -torch.exp(w))]
    out, end = module.naive_recurrent_rwkv6(*swapped, u, scale=1.0, initial_state=state, output_final_state=True)
    ours = wkv6(r, k, v, w, u, state, backend=backend)
    agree(dict(zip(("out", "end"), ours, strict=True)), {"out": out.transpose(1, 2), "end": end}, 1e-6)
