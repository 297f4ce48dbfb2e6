"""The Triton kernels in the interpreter, beside the reference in fp64: values and all gradients."""

import inspect
from itertools import product

import pytest
import torch

from mmrnn_kernels import wkv5, wkv6

OPS = {"wkv5": wkv5, "wkv6": wkv6}
REGIMES = {"mixed": (-8, 5), "strong": (2, 5), "weak": (-8, -6), "typical": (-7, -1)}
FORMS = ("chunks", "recurrent")
LENGTHS = (1, 15, 63, 100, 257)


def single(inputs):
    return [x.float() for x in inputs]


def double(inputs):
    return [x.double() for x in inputs]


def lengths():
    """Forms with lengths, in regimes. In the interpreter the recurrent form takes seconds for a long row: beyond a few
    spans of 16 positions one row in one regime is enough, since the loop is the same."""
    for form, t, regime in product(FORMS, LENGTHS, REGIMES):
        if form == "recurrent" and t > 63 and (t, regime) != (257, "mixed"):
            continue
        quick = t <= 100 if form == "chunks" else t <= 15 or (t, regime) == (63, "mixed")
        yield pytest.param(form, t, regime, marks=() if quick else pytest.mark.slow, id=f"{form}-t{t}-{regime}")


@pytest.mark.parametrize(("form", "t", "regime"), lengths())
@pytest.mark.parametrize("name", OPS)
def test_is_the_reference(draw, run, agree, interpreter, name, form, t, regime):
    inputs, grads = draw(OPS[name], 1, t, 1, 32, 32, *REGIMES[regime], seed=t)
    inputs = single(inputs)
    truth = run(OPS[name], double(inputs), grads, backend="reference")
    agree(interpreter("differentiated", name, inputs, grads, form=form), truth, 1e-6)


@pytest.mark.parametrize(
    ("size", "form"),
    [(64, "chunks"), *(pytest.param(*x, marks=pytest.mark.slow) for x in ((64, FORMS[1]), *product((128,), FORMS)))],
)
@pytest.mark.parametrize("name", OPS)
def test_sizes_rows_and_heads(draw, run, agree, interpreter, name, size, form):
    """The largest size in one row: rows are those of any size."""
    inputs, grads = draw(OPS[name], 2 if size == 64 else 1, 18, 2, size, size, -8, 5)
    inputs = single(inputs)
    truth = run(OPS[name], double(inputs), grads, backend="reference")
    agree(interpreter("differentiated", name, inputs, grads, form=form), truth, 1e-6)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", OPS)
def test_bf16(draw, run, agree, interpreter, name, regime):
    """Factors of products are rounded to bf16. That the decay's gradient is as exact as the others where all decays
    are strong is what the sum over levels is for: as a difference of running sums it would be nothing but rounding.
    """
    inputs, grads = draw(OPS[name], 1, 50, 1, 32, 32, *REGIMES[regime])
    inputs = [x.bfloat16() for x in inputs[:3]] + single(inputs[3:])
    grads = (grads[0].bfloat16(), grads[1].float())
    truth = run(OPS[name], double(inputs), grads, backend="reference")
    found = interpreter("differentiated", name, inputs, grads)
    assert found["out"].dtype == found["dr"].dtype == torch.bfloat16
    assert found["end"].dtype == found["dw"].dtype == torch.float32
    agree(found, truth, 2e-2)


@pytest.mark.parametrize("name", OPS)
def test_fp16(draw, run, agree, interpreter, name):
    inputs, grads = draw(OPS[name], 1, 50, 1, 32, 32)
    half = [x.half() for x in inputs[:5]] + [inputs[5].float()]
    grads = (grads[0].half(), grads[1].float())
    truth = run(OPS[name], double(half), grads, backend="reference")
    found = interpreter("differentiated", name, half, grads)
    assert found["out"].dtype == found["dw"].dtype == found["du"].dtype == torch.float16
    agree(found, truth, dict.fromkeys(found, 2**-10) | {"end": 1e-6, "dstate": 1e-6})


@pytest.mark.parametrize("t", [3, 40], ids=lambda t: f"t{t}")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPS)
def test_any_decay_is_finite(draw, run, agree, interpreter, name, form, t):
    inputs, grads = draw(OPS[name], 1, t, 1, 32, 32)
    extremes = torch.tensor([500.0, 90.0, 10.0, 5.0, 4.0, 3.0, 0.0, -20.0, -200.0, -torch.inf], dtype=torch.float64)
    choice = torch.randint(len(extremes), inputs[3].shape, generator=torch.Generator().manual_seed(1))
    inputs = single([*inputs[:3], extremes[choice], *inputs[4:]])
    truth = run(OPS[name], double(inputs), grads, backend="reference")
    agree(interpreter("differentiated", name, inputs, grads, form=form), truth, 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_not_a_number_is_not_hidden(draw, interpreter, form):
    inputs, grads = draw(wkv6, 1, 40, 1, 32, 32)
    inputs = single(inputs)
    inputs[3][0, 3, 0, 2] = torch.nan
    found = interpreter("differentiated", "wkv6", inputs, grads, form=form)
    assert found["out"][:, 4:].isnan().all()
    assert found["end"][0, 0, 2].isnan().all()


@pytest.mark.parametrize(
    ("form", "lengths"),
    [
        pytest.param(FORMS[0], (1, 37, 1, 1, 18, 0, 16), id="chunks-chunks"),
        pytest.param(FORMS[0], (1, 1, 0, 3), id="chunks-short"),
        pytest.param(FORMS[1], (1, 37, 1, 1, 18, 0, 16), id="recurrent-chunks", marks=pytest.mark.slow),
        pytest.param(FORMS[1], (1, 1, 0, 3), id="recurrent-short"),
    ],
)
@pytest.mark.parametrize("name", OPS)
def test_packed_is_one_by_one(draw, run, agree, interpreter, name, form, lengths):
    op, bounds = OPS[name], torch.tensor([0, *lengths]).cumsum(0)
    (r, k, v, w, u, _), (dy, _) = draw(op, 1, sum(lengths), 1, 32, 32, -6, 3)
    (*_, state), (_, end) = draw(op, len(lengths), 1, 1, 32, 32, seed=1)
    inputs = single((r, k, v, w, u, state))
    truth = run(op, double(inputs), (dy, end), cu_seqlens=bounds, backend="reference")
    agree(interpreter("differentiated", name, inputs, (dy, end), cu_seqlens=bounds, form=form), truth, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(1100,), (5, 1100, 0, 40, 530)], ids=["one", "packed"])
@pytest.mark.parametrize("name", OPS)
def test_pieces_are_the_whole(draw, run, agree, interpreter, name, lengths):
    """Few heads on many processors: half of the columns a program, and sequences cut into pieces."""
    op, bounds = OPS[name], torch.tensor([0, *lengths]).cumsum(0)
    (r, k, v, w, u, _), (dy, _) = draw(op, 1, sum(lengths), 1, 32, 32, -8, 3)
    (*_, state), (_, end) = draw(op, len(lengths), 1, 1, 32, 32, seed=1)
    inputs, options = single((r, k, v, w, u, state)), {"cu_seqlens": bounds if len(lengths) > 1 else None}
    truth = run(op, double(inputs), (dy, end), **options, backend="reference")
    agree(interpreter("differentiated", name, inputs, (dy, end), **options, processors=64), truth, 2e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("used", ["out", "end"])
@pytest.mark.parametrize("name", OPS)
def test_only_one_output_is_used_and_no_state_given(draw, agree, interpreter, name, used, form):
    inputs, grads = draw(OPS[name], 2, 20, 1, 32, 32)
    which = ("out", "end").index(used)
    inputs, grads = single(inputs[:5]), [g if i == which else None for i, g in enumerate(grads)]
    leaves = [x.double().requires_grad_() for x in inputs]
    outputs = OPS[name](*leaves, backend="reference")
    truth = torch.autograd.grad(outputs[which], leaves, grads[which], allow_unused=True)
    found = interpreter("differentiated", name, [*inputs, None], grads, form=form)
    for label, x in zip(("dr", "dk", "dv", "dw", "du"), truth, strict=True):
        agree({label: found[label]}, {label: torch.zeros_like(found[label]) if x is None else x}, 1e-6)


@pytest.mark.parametrize("t", [5, 20], ids=lambda t: f"t{t}")
def test_inputs_may_lie_anyhow(draw, interpreter, t):
    inputs, grads = draw(wkv6, 1, t, 2, 32, 32)
    inputs = single(inputs)
    odd = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    assert not odd[0].is_contiguous()
    plain, turned = (interpreter("differentiated", "wkv6", x, grads) for x in (inputs, odd))
    assert all(torch.equal(plain[name], turned[name]) for name in plain)


@pytest.mark.parametrize("name", OPS)
def test_a_step_moves_the_state_where_it_lies(draw, agree, interpreter, name):
    inputs, _ = draw(OPS[name], 3, 1, 2, 32, 32, -8, 5)
    inputs = single(inputs)
    out, end = OPS[name](*double(inputs), backend="reference")
    rows = [x[:, 0] if x.dim() == 4 else x for x in inputs[:5]]
    found, state = interpreter("stepped", [*rows, inputs[5]])
    agree({"out": found, "end": state}, {"out": out[:, 0], "end": end}, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
def test_opcheck_and_fullgraph(draw, interpreter, name):
    inputs, grads = draw(OPS[name], 1, 20, 1, 32, 32)
    inputs, bounds = single(inputs), torch.tensor([0, 20])
    compiled, plain = interpreter("checked", name, inputs, [g.float() for g in grads], bounds)
    torch.testing.assert_close(compiled, plain)


def test_bounds_that_do_not_fit(draw, interpreter):
    inputs, grads = draw(wkv6, 1, 6, 1, 32, 32)
    inputs = single(inputs)
    for bounds, message in (
        ([0, 5], r"from 0 to t = 6, got \[0, 5\]"),
        ([0, 7, 6], r"must not decrease, got \[0, 7, 6\]"),
    ):
        state = inputs[5].repeat(len(bounds) - 1, 1, 1, 1)
        with pytest.raises(ValueError, match=message):
            interpreter("differentiated", "wkv6", [*inputs[:5], state], grads, cu_seqlens=torch.tensor(bounds))
    with pytest.raises(ValueError, match=r"2 segments need as many states, got state \[1, 1, 32, 32\]"):
        interpreter("differentiated", "wkv6", inputs, grads, cu_seqlens=torch.tensor([0, 3, 6]))


def test_sizes_and_types_it_cannot_take(draw, interpreter):
    for size, change, message in (
        (16, torch.Tensor.float, r"keys and values must have the same size, 32, 64, 128, got 16 and 16"),
        (32, torch.Tensor.double, r"it computes in fp32, got torch.float64"),
    ):
        inputs, grads = draw(wkv6, 1, 2, 1, size, size)
        with pytest.raises(RuntimeError, match=rf"^wkv6: backend 'triton' cannot run here: {message}"):
            interpreter("differentiated", "wkv6", [change(x) for x in inputs], grads)


def test_what_it_cannot_take():
    x = torch.zeros(1, 2, 1, 32)
    with pytest.raises(RuntimeError, match=r"'triton' cannot run here: it needs CUDA tensors, got one on cpu$"):
        wkv6(x, x, x, x, x[0, 0], backend="triton")
    with pytest.raises(RuntimeError, match=r"^wkv5: backend 'triton' cannot run here: it needs CUDA tensors"):
        inspect.unwrap(wkv5)(x, x, x, x[0, 0], x[0, 0], backend="triton")
