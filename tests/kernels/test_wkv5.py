import pytest
import torch

from mmrnn_kernels import wkv5, wkv6

LENGTHS = (1, 2, 15, 63, 64, 65, 100, 257)
REGIMES = {"mixed": (-8, 5), "strong": (2, 5), "beyond": (-8, 40), "weak": (-8, -6), "typical": (-7, -1)}
BACKENDS = ("reference", "chunked")


def test_gradients_of_the_reference_are_the_written_ones(draw, run, agree):
    """The backward equations of the README; that of w is summed over rows and positions."""
    inputs, (dy, end) = draw(wkv5, 2, 9, 3, 5, 4, -3, 1)
    r, k, v, w, u, state = inputs
    decay = torch.exp(-torch.exp(w))[..., None]
    states = [state]
    for t in range(9):
        states.append(decay * states[t] + k[:, t, ..., None] * v[:, t, :, None])
    dr, dk, dv, dw, du = (torch.zeros_like(x) for x in (r, k, v, w, u))
    g = end
    out = torch.zeros_like(v)
    for t in reversed(range(9)):
        shared = (v[:, t] * dy[:, t]).sum(-1, keepdim=True)
        bonus = (r[:, t] * u * k[:, t]).sum(-1, keepdim=True)
        out[:, t] = torch.einsum("bhk,bhkv->bhv", r[:, t], states[t]) + bonus * v[:, t]
        dr[:, t] = torch.einsum("bhkv,bhv->bhk", states[t], dy[:, t]) + u * k[:, t] * shared
        dk[:, t] = torch.einsum("bhkv,bhv->bhk", g, v[:, t]) + u * r[:, t] * shared
        dv[:, t] = torch.einsum("bhkv,bhk->bhv", g, k[:, t]) + bonus * dy[:, t]
        du += (r[:, t] * k[:, t] * shared).sum(0)
        dw -= (torch.exp(w) * decay[..., 0] * (g * states[t]).sum(-1)).sum(0)
        g = decay * g + r[:, t, ..., None] * dy[:, t, :, None]
    truth = {"out": out, "end": states[-1], "dr": dr, "dk": dk, "dv": dv, "dw": dw, "du": du, "dstate": g}
    agree(run(wkv5, inputs, (dy, end), backend="reference"), truth, 1e-13)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("t", LENGTHS, ids=lambda t: f"t{t}")
def test_chunked_is_the_reference_fp32(draw, run, agree, t, regime):
    inputs, grads = draw(wkv5, 2, t, 2, 32, 64, *REGIMES[regime], seed=t)
    single = [x.float() for x in inputs]
    truth = run(wkv5, [x.double() for x in single], grads, backend="reference")
    agree(run(wkv5, single, grads, backend="chunked"), truth, 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_decay_gets_its_gradient_summed_in_fp32(draw, run, agree, backend):
    inputs, grads = draw(wkv5, 2, 100, 2, 16, 16)
    half = [x.bfloat16() for x in inputs[:5]] + [inputs[5].float()]
    grads = (grads[0].bfloat16(), grads[1].float())
    truth = run(wkv5, [x.double() for x in half], grads, backend="reference")
    found = run(wkv5, half, grads, backend=backend)
    # Token by token the rounding of the one decay is the same at every step and adds up.
    agree(found, truth, dict.fromkeys(found, 2**-8) | {"end": 2e-6, "dstate": 2e-6})


@pytest.mark.parametrize("backend", BACKENDS)
def test_decay_at_the_ends_of_its_range(draw, run, agree, backend):
    inputs, grads = draw(wkv5, 1, 70, 1, 8, 8)
    inputs = (*inputs[:3], torch.tensor([[500.0, 90.0, 5.0, 4.0, 0.0, -20.0, -200.0, -torch.inf]]), *inputs[4:])
    inputs = [x.float() for x in inputs]
    truth = run(wkv5, [x.double() for x in inputs], grads, backend="reference")
    agree(run(wkv5, inputs, grads, backend=backend), truth, 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_wkv6_with_the_decay_repeated(draw, backend):
    (r, k, v, w, u, state), _ = draw(wkv5, 2, 30, 2, 8, 8)
    ours = wkv5(r, k, v, w, u, state, backend=backend)
    torch.testing.assert_close(ours, wkv6(r, k, v, w.expand_as(r), u, state, backend=backend), rtol=1e-13, atol=1e-13)
