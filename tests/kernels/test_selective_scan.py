import shutil

import pytest
import torch

from mmrnn_kernels import Segments, selective_scan
from mmrnn_kernels.common.native import build
from mmrnn_kernels.selective_scan import chunked
from tests.kernels.selective_scan import NAMES, REGIMES, draw, run, single

COMPILER = any(map(shutil.which, build.COMPILERS))
CPU = pytest.param("cpu", marks=pytest.mark.skipif(not COMPILER, reason="no C++ compiler"))
FAST = ("chunked", CPU)


def test_gradients_of_the_reference_are_the_written_ones(agree):
    """The backward equations of the README, position by position."""
    inputs, (dy, end) = draw(2, 9, 5, 4, "model")
    x, dt, a, b, c, state = inputs
    states = [state]
    for t in range(9):
        written = (dt[:, t] * x[:, t])[..., None] * b[:, t, None]
        states.append(torch.exp(dt[:, t, :, None] * a) * states[t] + written)
    found = {name: torch.zeros_like(one) for name, one in zip(NAMES[2:7], inputs, strict=False)}
    grad = end
    for t in reversed(range(9)):
        grad = grad + dy[:, t, :, None] * c[:, t, None]
        decay = torch.exp(dt[:, t, :, None] * a)
        read, lost = torch.einsum("bds,bs->bd", grad, b[:, t]), grad * decay * states[t]
        found["dx"][:, t] = dt[:, t] * read
        found["ddt"][:, t] = x[:, t] * read + (lost * a).sum(-1)
        found["da"] += (lost * dt[:, t, :, None]).sum(0)
        found["db"][:, t] = torch.einsum("bds,bd->bs", grad, dt[:, t] * x[:, t])
        found["dc"][:, t] = torch.einsum("bds,bd->bs", states[t + 1], dy[:, t])
        grad = decay * grad
    truth = run(inputs, (dy, end), backend="reference")
    agree(found | {"end": states[-1], "dstate": grad}, truth, 1e-13)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(("t", "d", "s"), [(1, 70, 16), (15, 5, 3), (100, 70, 16), (257, 16, 8)])
def test_fp32_is_the_reference(agree, t, d, s, regime):
    inputs, grads = draw(2, t, d, s, regime, seed=t)
    truth = run(inputs, grads, backend="reference")
    for backend in ("chunked", "cpu") if COMPILER else ("chunked",):
        agree(run(single(inputs), grads, backend=backend), truth, 1e-6)


@pytest.mark.parametrize("elements", [1, 2**16], ids=["one chunk", "chunks"])
def test_chunked_is_the_reference_in_fp64(agree, monkeypatch, elements):
    """Both ways: positions one after the other, and chunks side by side."""
    monkeypatch.setattr(chunked, "STEP_ELEMENTS", elements)
    inputs, grads = draw(2, 65, 6, 4)
    assert (chunked.number_of_chunks(inputs[0], inputs[2]) == 1) == (elements == 1)
    found = run(inputs, grads, backend="chunked")
    assert {x.dtype for x in found.values()} == {torch.float64}
    agree(found, run(inputs, grads, backend="reference"), 1e-13)


@pytest.mark.parametrize("backend", FAST)
def test_constant_step_that_forgets_little(agree, backend):
    """The rounding of the decay is the same at every position, and must not add up."""
    inputs, grads = draw(1, 2000, 4, 4, "weak")
    inputs[1] = torch.full_like(inputs[1], 1.1e-3).float().double()
    truth = run(inputs, grads, backend="reference")
    agree(run(single(inputs), grads, backend=backend), truth, 2e-6)


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_any_decay_is_finite(agree, backend):
    inputs, grads = draw(2, 40, 16, 8)
    extremes = torch.tensor([0.0, 1e-30, 1e-9, 0.5, 90.0, 1e4, 1e30], dtype=torch.float32).double()
    choice = torch.randint(len(extremes), inputs[1].shape, generator=torch.Generator().manual_seed(1))
    inputs[1] = extremes[choice]
    inputs[0] = inputs[0] / inputs[1].clamp_min(1).float()  # what is written stays in range
    inputs = [x.float().double() for x in inputs]
    truth = run(inputs, grads, backend="reference")
    agree(run(single(inputs), grads, backend=backend), truth, 2e-6)


@pytest.mark.parametrize("backend", FAST)
def test_not_a_number_is_not_hidden(backend):
    inputs, _ = draw(1, 20, 4, 8)
    inputs[1][0, 3, 2] = torch.nan
    out, end = selective_scan(*single(inputs), backend=backend)
    assert out[:, :3].isfinite().all()
    assert out[:, 3:, 2].isnan().all()
    assert end[0, 2].isnan().all()
    assert end[0, :2].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_half_inputs_are_computed_in_fp32(agree, backend, dtype):
    inputs, grads = draw(2, 40, 20, 8, "model")
    half = [x.float() if i == 5 else x.to(dtype) for i, x in enumerate(inputs)]
    grads = [grads[0].to(dtype), grads[1].float()]
    truth = run([x.double() for x in half], grads, backend="reference")
    found = run(half, grads, backend=backend)
    assert found["out"].dtype == found["da"].dtype == found["dc"].dtype == dtype
    assert found["end"].dtype == found["dstate"].dtype == torch.float32
    agree(found, truth, dict.fromkeys(NAMES, torch.finfo(dtype).eps) | {"end": 1e-6, "dstate": 1e-6})


@pytest.mark.parametrize("prepared", [False, True], ids=["edges", "prepared"])
@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_packed_is_one_by_one(agree, backend, prepared):
    lengths = (1, 30, 3, 0, 2, 17)
    edges = torch.tensor([0, *lengths]).cumsum(0)
    inputs, grads = draw(1, sum(lengths), 6, 4, "model", rows=len(lengths))

    def one_by_one(x, dt, a, b, c, state):
        outs, ends = [], []
        for i, (start, stop) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
            before = state[i : i + 1]
            if stop > start:
                timed = (one[:, start:stop] for one in (x, dt))
                out, before = selective_scan(*timed, a, b[:, start:stop], c[:, start:stop], before, backend="reference")
                outs.append(out)
            ends.append(before)
        return torch.cat(outs, 1), torch.cat(ends)

    truth = run(inputs, grads, one_by_one)
    found = run(single(inputs), grads, cu_seqlens=Segments.of(edges) if prepared else edges, backend=backend)
    agree(found, truth, 1e-6)


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_state_splits_anywhere_and_none_is_zeros(agree, backend):
    inputs, grads = draw(2, 40, 6, 4)

    def two_parts(x, dt, a, b, c, state, cut=17):
        first, state = selective_scan(x[:, :cut], dt[:, :cut], a, b[:, :cut], c[:, :cut], state, backend=backend)
        second, state = selective_scan(x[:, cut:], dt[:, cut:], a, b[:, cut:], c[:, cut:], state, backend=backend)
        return torch.cat([first, second], 1), state

    agree(run(single(inputs), grads, two_parts), run(inputs, grads, backend="reference"), 1e-6)
    timed = single(inputs[:5])
    found, truth = (selective_scan(*timed, *rest, backend=backend) for rest in ((), (torch.zeros(2, 6, 4),)))
    assert all(map(torch.equal, found, truth))


@pytest.mark.parametrize("used", ["out", "end"])
@pytest.mark.parametrize("backend", FAST)
def test_a_gradient_of_one_output_alone(agree, backend, used):
    inputs, grads = draw(1, 40, 6, 4)
    grads = [g if name == used else None for name, g in zip(("out", "end"), grads, strict=True)]
    agree(run(single(inputs), grads, backend=backend), run(inputs, grads, backend="reference"), 2e-6)


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_threads_change_nothing_and_inputs_may_lie_anyhow():
    inputs, grads = draw(2, 40, 150, 8)
    inputs = single(inputs)
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    alone = run(inputs, grads, backend="cpu")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        several = run(turned, grads, backend="cpu")
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(alone[name], several[name]) for name in NAMES)


def test_auto_takes_the_native_code():
    inputs, _ = draw(1, 20, 6, 4)
    expected = selective_scan(*single(inputs), backend="cpu" if COMPILER else "chunked")
    assert all(map(torch.equal, selective_scan(*single(inputs)), expected))


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_golden(golden, backend):
    """Mamba-1's scan of transformers with what surrounds it: softplus and bias, `D u` and the gate."""
    _, tensors = golden("selective_scan_hf")
    names = ("u", "dt", "A", "B", "C", "D", "z", "bias")
    leaves = {name: tensors[f"in/{name}"].clone().requires_grad_() for name in names}

    def scan(u, dt, B, C, z, state=None):
        timed = [one.transpose(1, 2) for one in (u, dt, B, C, z)]
        steps = torch.nn.functional.softplus(timed[1] + leaves["bias"])
        out, end = selective_scan(timed[0], steps, leaves["A"], timed[2], timed[3], state, backend=backend)
        out = (out + leaves["D"] * timed[0]) * torch.nn.functional.silu(timed[4])
        return out.transpose(1, 2), end

    y, end = scan(*(leaves[name] for name in ("u", "dt", "B", "C", "z")))
    torch.testing.assert_close(y, tensors["out/y"], atol=5e-5, rtol=0)
    torch.testing.assert_close(end, tensors["out/state"], atol=5e-5, rtol=0)
    step = [tensors[f"in/step_{name}"][..., None] for name in ("u", "dt", "B", "C", "z")]
    found = scan(*step, tensors["out/state"])
    for name, one in (("y", found[0][..., 0]), ("state", found[1])):
        torch.testing.assert_close(one, tensors[f"out/step_{name}"], atol=5e-5, rtol=0)
    loss = (y * tensors["in/weights_y"]).sum() + (end * tensors["in/weights_state"]).sum()
    for name, grad in zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True):
        expected = tensors[f"grad/{name}"]
        assert (grad - expected).abs().max() <= 1e-4 * expected.abs().max(), name
