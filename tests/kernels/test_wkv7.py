import importlib.util
import inspect
import shutil
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint

from mmrnn_kernels import wkv7
from mmrnn_kernels.common.native import build

# What RWKV-7 can produce at most, decays of everything at once, near zero, near one, and as in trained models.
REGIMES = {"model": (-8, -0.5), "mixed": (-8, 5), "strong": (2, 5), "beyond": (-8, 40), "weak": (-8, -6)}
SHAPES = [(t, *size) for size in ((64, 64), (16, 32), (5, 7)) for t in (1, 15, 63, 100)] + [(64, 16, 16), (257, 16, 16)]
COMPILER = any(map(shutil.which, build.COMPILERS))
CPU = pytest.param("cpu", marks=pytest.mark.skipif(not COMPILER, reason="no C++ compiler"))
FAST = ("chunked", CPU)
BACKENDS = ("reference", *FAST)


def test_reference_is_what_the_paper_prints(draw, agree):
    """Matrices multiplied out: S_t sums all k_s^T v_s, taken through diag(d) + b^T a of every later position."""
    (r, w, k, v, a, b, state), _ = draw(wkv7, 2, 7, 2, 4, 3, -3, 1)
    decay, out = torch.exp(-torch.exp(w)), torch.zeros_like(v)
    step = torch.diag_embed(decay) + b[..., :, None] * a[..., None, :]  # b t h k k
    written = [state, *(k[:, t, ..., None] * v[:, t, :, None] for t in range(7))]
    for t in range(7):
        written = [*(step[:, t] @ s for s in written[: t + 1]), *written[t + 1 :]]
        out[:, t] = torch.einsum("bhk,bhkv->bhv", r[:, t], sum(written[: t + 2]))
    found, end = wkv7(r, w, k, v, a, b, state, backend="reference")
    agree({"out": found, "end": end}, {"out": out, "end": sum(written)}, 1e-14)


def test_gradients_of_the_reference_are_the_written_ones(draw, run, agree):
    """The backward equations of the README, position by position."""
    inputs, (dy, end) = draw(wkv7, 2, 9, 3, 5, 4, -3, 1)
    r, w, k, v, a, b, state = inputs
    decay = torch.exp(-torch.exp(w))[..., None]
    states, met = [state], []
    for t in range(9):
        met.append(torch.einsum("bhk,bhkv->bhv", a[:, t], states[t]))
        added = b[:, t, ..., None] * met[t][:, :, None] + k[:, t, ..., None] * v[:, t, :, None]
        states.append(decay[:, t] * states[t] + added)
    dr, dw, dk, dv, da, db = (torch.zeros_like(x) for x in (r, w, k, v, a, b))
    g = end
    for t in reversed(range(9)):
        g = g + r[:, t, ..., None] * dy[:, t, :, None]
        dr[:, t] = torch.einsum("bhkv,bhv->bhk", states[t + 1], dy[:, t])
        dk[:, t] = torch.einsum("bhkv,bhv->bhk", g, v[:, t])
        dv[:, t] = torch.einsum("bhkv,bhk->bhv", g, k[:, t])
        db[:, t] = torch.einsum("bhkv,bhv->bhk", g, met[t])
        dmet = torch.einsum("bhkv,bhk->bhv", g, b[:, t])
        da[:, t] = torch.einsum("bhkv,bhv->bhk", states[t], dmet)
        dw[:, t] = -torch.exp(w[:, t]) * decay[:, t, ..., 0] * (g * states[t]).sum(-1)
        g = decay[:, t] * g + a[:, t, ..., None] * dmet[:, :, None]
    truth = {"end": states[-1], "dr": dr, "dw": dw, "dk": dk, "dv": dv, "da": da, "db": db, "dstate": g}
    found = run(wkv7, inputs, (dy, end), backend="reference")
    del found["out"]
    agree(found, truth, 1e-13)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_gradcheck(draw, backend):
    inputs, _ = draw(wkv7, 1, 5, 2, 3, 2, -2, 1)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: wkv7(*x, backend=backend), leaves, fast_mode=True)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(("t", "k", "v"), SHAPES)
def test_fp32_is_the_reference(draw, run, agree, t, k, v, regime):
    inputs, grads = draw(wkv7, 2, t, 2, k, v, *REGIMES[regime], seed=t)
    single = [x.float() for x in inputs]
    truth = run(wkv7, [x.double() for x in single], grads, backend="reference")
    for backend in ("chunked", "cpu") if COMPILER else ("chunked",):
        agree(run(wkv7, single, grads, backend=backend), truth, 1e-6)


@pytest.mark.parametrize("t", [2, 65], ids=lambda t: f"t{t}")
def test_chunked_is_the_reference_fp64(draw, run, agree, t):
    inputs, grads = draw(wkv7, 2, t, 3, 8, 8, -8, 5)
    truth = run(wkv7, inputs, grads, backend="reference")
    found = run(wkv7, inputs, grads, backend="chunked")
    assert {x.dtype for x in found.values()} == {torch.float64}
    agree(found, truth, 1e-13)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)], ids=["bf16", "fp16"])
@pytest.mark.parametrize("t", [1, 15, 63, 100], ids=lambda t: f"t{t}")
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_inputs_are_computed_in_fp32(draw, run, agree, backend, t, dtype, limit):
    """Only what leaves is rounded: the states, which stay fp32, are as exact as from fp32 inputs."""
    inputs, grads = draw(wkv7, 1, t, 2, 16, 16, -7, -1, seed=t)
    half = [x.to(dtype) for x in inputs[:6]] + [inputs[6].float()]
    grads = (grads[0].to(dtype), grads[1].float())
    truth = run(wkv7, [x.double() for x in half], grads, backend="reference")
    found = run(wkv7, half, grads, backend=backend)
    assert found["out"].dtype == found["dw"].dtype == found["da"].dtype == dtype
    assert found["end"].dtype == found["dstate"].dtype == torch.float32
    agree(found, truth, dict.fromkeys(found, limit) | {"end": 1e-6, "dstate": 1e-6})


@pytest.mark.parametrize("t", [1, 40, 70], ids=lambda t: f"t{t}")
@pytest.mark.parametrize("backend", FAST)
def test_autocast_changes_nothing(draw, run, backend, t):
    inputs, grads = draw(wkv7, 1, t, 2, 16, 16)
    inputs = [x.float() for x in inputs]
    plain = run(wkv7, inputs, grads, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        cast = run(wkv7, inputs, grads, backend=backend)
    assert all(torch.equal(cast[name], plain[name]) for name in plain)


@pytest.mark.parametrize("t", [1, 17, 80], ids=lambda t: f"t{t}")
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_decay_is_finite(draw, run, agree, backend, t):
    """exp(-148) is 0 in fp32, exp(500) is infinite, a pre-activation of -inf is a decay of exactly one."""
    inputs, grads = draw(wkv7, 2, t, 2, 16, 16)
    extremes = torch.tensor([500.0, 90.0, 10.0, 5.0, 4.0, 3.0, 0.0, -0.5, -20.0, -torch.inf], dtype=torch.float64)
    choice = torch.randint(len(extremes), inputs[1].shape, generator=torch.Generator().manual_seed(1))
    inputs = [x.float() for x in (inputs[0], extremes[choice], *inputs[2:])]
    truth = run(wkv7, [x.double() for x in inputs], grads, backend="reference")
    agree(run(wkv7, inputs, grads, backend=backend), truth, 1e-6)


@pytest.mark.parametrize("backend", FAST)
def test_many_positions_that_forget_nothing(draw, run, agree, backend):
    """Decays next to one: what is written stays until the delta rule takes it away."""
    inputs, grads = draw(wkv7, 1, 600, 1, 16, 16, -9, -7)
    inputs = [x.float() for x in inputs]
    truth = run(wkv7, [x.double() for x in inputs], grads, backend="reference")
    agree(run(wkv7, inputs, grads, backend=backend), truth, 2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_removal_it_is_linear_attention(draw, agree, backend):
    """And a rate of one takes away all that the state holds at kappa."""
    (r, w, k, v, a, b, state), _ = draw(wkv7, 1, 20, 1, 8, 8)
    inputs = [x.float() for x in (r, torch.full_like(w, -torch.inf), k, v)]
    kept, _ = wkv7(*inputs, 0 * a.float(), b.float(), state.float(), backend=backend)
    sums = state[:, None] + (k[..., None] * v[..., None, :]).cumsum(1)
    agree({"out": kept}, {"out": torch.einsum("bthk,bthkv->bthv", r, sums)}, 1e-6)
    kappa, none = -a.float(), torch.zeros_like(inputs[2])
    _, end = wkv7(inputs[0], inputs[1], none, inputs[3], -kappa, kappa, state.float(), backend=backend)
    assert torch.einsum("bhk,bhkv->bhv", kappa[:, -1], end).abs().max() < 1e-6


@pytest.mark.parametrize("cut", [1, 15, 64, 99], ids=lambda cut: f"cut{cut}")
@pytest.mark.parametrize("backend", BACKENDS)
def test_state_splits_anywhere(draw, run, agree, backend, cut):
    inputs, grads = draw(wkv7, 2, 100, 2, 16, 8, -8, 2)
    dtype, limit = (torch.float32, 1e-6) if backend == "cpu" else (torch.float64, 1e-13)
    inputs = [x.to(dtype) for x in inputs]

    def two_parts(*x, backend):
        first, state = wkv7(*(y[:, :cut] for y in x[:6]), x[6], backend=backend)
        second, state = wkv7(*(y[:, cut:] for y in x[:6]), state, backend=backend)
        return torch.cat([first, second], 1), state

    whole = run(wkv7, [x.double() for x in inputs], grads, backend="reference")
    agree(run(two_parts, inputs, grads, backend=backend), whole, limit)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_state_is_a_state_of_zeros(draw, backend):
    inputs = [x.float() for x in draw(wkv7, 2, 20, 2, 8, 8)[0]]
    found, truth = wkv7(*inputs[:6], backend=backend), wkv7(*inputs[:6], 0 * inputs[6], backend=backend)
    assert all(map(torch.equal, found, truth))


@pytest.mark.parametrize("wanted", ["out", "end"])
@pytest.mark.parametrize("backend", FAST)
def test_a_gradient_of_one_output_alone(draw, agree, backend, wanted):
    inputs = [x.float().requires_grad_() for x in draw(wkv7, 1, 40, 2, 8, 8)[0]]
    which = ("out", "end").index(wanted)
    found, truth = (
        torch.autograd.grad(wkv7(*inputs, backend=one)[which].square().sum(), inputs, materialize_grads=True)
        for one in (backend, "reference")
    )
    agree(dict(enumerate(found)), dict(enumerate(truth)), 2e-6)


@pytest.mark.parametrize("t", [1, 70], ids=lambda t: f"t{t}")
@pytest.mark.parametrize("backend", FAST)
def test_inputs_may_lie_anyhow_and_are_left_alone(draw, run, agree, backend, t):
    inputs, grads = draw(wkv7, 2, t, 3, 16, 16)
    inputs = [x.float() for x in inputs]
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    assert not turned[0].is_contiguous()
    before = [x.clone() for x in turned]

    def op(*x):
        return wkv7(*(y.transpose(0, -1).contiguous().transpose(0, -1) for y in x), backend=backend)

    agree(run(op, inputs, grads), run(wkv7, inputs, grads, backend=backend), 1e-6)
    wkv7(*turned, backend=backend)
    assert all(map(torch.equal, turned, before))


@pytest.mark.parametrize("backend", FAST)
def test_many_rows_and_heads_are_the_same_as_one(draw, agree, backend):
    """Tiles take several rows, several heads or pieces of time; odd numbers leave remainders of each."""
    inputs = [x.float() for x in draw(wkv7, 5, 300, 7, 16, 16)[0]]
    out, end = wkv7(*inputs, backend=backend)
    for row, head in ((0, 0), (4, 6), (2, 3)):
        b, h = slice(row, row + 1), slice(head, head + 1)
        alone = wkv7(*(x[b, :, h] for x in inputs[:6]), inputs[6][b, h], backend=backend)
        agree({"out": out[b, :, h], "end": end[b, h]}, dict(zip(("out", "end"), alone, strict=True)), 1e-6)


@pytest.mark.parametrize(("backend", "states"), [("chunked", 20), pytest.param("cpu", 1, marks=CPU.marks)])
def test_memory_for_the_backward_pass(draw, backend, states):
    """Kept are the inputs and (chunked) one state a chunk; without gradients nothing."""
    inputs = [x.float() for x in draw(wkv7, 2, 640, 2, 16, 16)[0]]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda _: None):
        wkv7(*inputs, backend=backend)
        assert kept == []
        wkv7(*(x.requires_grad_() for x in inputs), backend=backend)
    assert sum(kept) == sum(x.numel() for x in inputs[:6]) + states * inputs[6].numel()


@pytest.mark.parametrize("backend", FAST)
def test_inside_a_checkpoint(draw, run, backend):
    inputs, grads = draw(wkv7, 1, 40, 2, 16, 16)
    inputs = [x.float() for x in inputs]

    def op(*x):
        return torch.utils.checkpoint.checkpoint(lambda *y: wkv7(*y, backend=backend), *x, use_reentrant=False)

    plain, again = run(wkv7, inputs, grads, backend=backend), run(op, inputs, grads)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize("lengths", [(20, 20), (1, 130, 3, 1, 2, 64), (1, 1, 1), (33,), (0, 5, 0, 1)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_is_one_by_one(draw, run, agree, backend, lengths):
    inputs, (dy, _) = draw(wkv7, 1, sum(lengths), 2, 8, 16, -6, 3)
    (*_, state), (_, end) = draw(wkv7, len(lengths), 1, 2, 8, 16, seed=1)
    inputs, grads = [x.float() for x in (*inputs[:6], state)], (dy, end)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()

    def one_by_one(*x):
        outs, ends = [], []
        for segment, (start, stop) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            before = x[6][segment : segment + 1]
            if stop > start:
                out, before = wkv7(*(y[:, start:stop] for y in x[:6]), before, backend="reference")
                outs.append(out)
            ends.append(before)
        return torch.cat(outs, 1), torch.cat(ends)

    truth = run(one_by_one, [x.double() for x in inputs], grads)
    agree(run(wkv7, inputs, grads, cu_seqlens=bounds, backend=backend), truth, 1e-6)


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_the_number_of_threads_changes_nothing(draw, run):
    inputs, grads = draw(wkv7, 2, 300, 3, 32, 32)
    inputs = [x.float() for x in inputs]
    alone = run(wkv7, inputs, grads, backend="cpu")
    try:
        torch.set_num_threads(2)
        together = run(wkv7, inputs, grads, backend="cpu")
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(alone[name], together[name]) for name in alone)


def test_what_it_cannot_take():
    x = torch.zeros(1, 2, 1, 4)
    plain = inspect.unwrap(wkv7)
    with pytest.raises(ValueError, match=r"^wkv7: t is 2 in r \[1, 2, 1, 4\] but 1 in w \[1, 1, 1, 4\]"):
        plain(x, x[:, :1], x, x, x, x)
    with pytest.raises(ValueError, match=r"k is 4 in r .* but 3 in b \[1, 2, 1, 3\]"):
        plain(x, x, x, x, x, x[..., :3])
    with pytest.raises(
        ValueError, match=r"^wkv7: backend must be one of \['auto', 'triton', 'cpu', 'chunked', 'reference'\]"
    ):
        wkv7(x, x, x, x, x, x, backend="cuda")
    with pytest.raises(RuntimeError, match=r"'cpu' cannot run here: it computes in fp32, got torch.float64$"):
        wkv7(x.double(), x, x, x, x, x, backend="cpu")
    with pytest.raises(RuntimeError, match=r"'triton' cannot run here: it needs CUDA tensors, got one on cpu$"):
        wkv7(x, x, x, x, x, x, backend="triton")
    x = x.to("meta")
    with pytest.raises(RuntimeError, match=r"'cpu' cannot run here: it needs CPU tensors, got one on meta$"):
        wkv7(x, x, x, x, x, x, backend="cpu")
    assert wkv7(x, x, x, x, x, x)[0].shape == (1, 2, 1, 4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("t", [1, 33, 100], ids=lambda t: f"t{t}")
def test_fla_computes_the_same(draw, agree, backend, t):
    """Another library's recurrence, which wants the log-decay, and would scale r."""
    found = importlib.util.find_spec("fla")
    if found is None:
        pytest.skip("flash-linear-attention is not installed")
    path = Path(found.submodule_search_locations[0], "ops", "generalized_delta_rule", "dplr", "naive.py")
    spec = importlib.util.spec_from_file_location("naive", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    inputs, _ = draw(wkv7, 2, t, 3, 16, 16, -8, -0.5)
    r, w, k, v, a, b, state = (x.float() for x in inputs)
    swapped = [x.transpose(1, 2) for x in (r * 16**0.5, k, v, a, b, -torch.exp(w))]
    out, end = module.dplr_recurrence(*swapped, initial_state=state, output_final_state=True)
    ours = wkv7(r, w, k, v, a, b, state, backend=backend)
    agree(dict(zip(("out", "end"), ours, strict=True)), {"out": out.transpose(1, 2), "end": end}, 1e-6)
