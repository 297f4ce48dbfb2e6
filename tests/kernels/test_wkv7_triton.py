"""The Triton kernels of WKV-7 in the interpreter, beside the reference in fp64: values and all gradients."""

from itertools import product

import pytest
import torch

from mmrnn_kernels import wkv7

MODEL = (-8, -0.5)
REGIMES = {"model": MODEL, "mixed": (-8, 5), "strong": (2, 5), "weak": (-8, -6), "typical": (-7, -1)}
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
        quick = t <= 15 and regime == "model"
        yield pytest.param(form, t, regime, marks=() if quick else pytest.mark.slow, id=f"t{t}-{regime}-{form}")


@pytest.mark.parametrize(("form", "t", "regime"), lengths())
def test_is_the_reference(draw, run, agree, interpreter, form, t, regime):
    """In chunks, which fp32 inputs take nowhere but here, strong decays are within 2e-6."""
    inputs, grads = draw(wkv7, 1, t, 1, 32, 32, *REGIMES[regime], seed=t)
    inputs = single(inputs)
    truth = run(wkv7, double(inputs), grads, backend="reference")
    found = interpreter("differentiated", "wkv7", inputs, grads, form=form)
    agree(found, truth, 2e-6 if (form, regime) == ("chunks", "strong") else 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [64, 128])
def test_sizes_rows_and_heads(draw, run, agree, interpreter, size, form):
    """The largest size in one row: rows are those of any size."""
    inputs, grads = draw(wkv7, 2 if size == 64 else 1, 18, 2, size, size, -8, 5)
    inputs = single(inputs)
    truth = run(wkv7, double(inputs), grads, backend="reference")
    agree(interpreter("differentiated", "wkv7", inputs, grads, form=form), truth, 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_packed_is_one_by_one(draw, run, agree, interpreter, form):
    lengths = (1, 17, 1, 0, 5)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    (*rows, _), (dy, _) = draw(wkv7, 1, sum(lengths), 1, 32, 32, -6, 3)
    (*_, state), (_, end) = draw(wkv7, len(lengths), 1, 1, 32, 32, seed=1)
    inputs = single((*rows, state))
    truth = run(wkv7, double(inputs), (dy, end), cu_seqlens=bounds, backend="reference")
    agree(interpreter("differentiated", "wkv7", inputs, (dy, end), cu_seqlens=bounds, form=form), truth, 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_types(draw, run, agree, interpreter, dtype):
    """Factors of products are rounded to bf16; fp16 in the interpreter only as it comes and goes."""
    inputs, grads = draw(wkv7, 1, 20, 1, 32, 32, *MODEL)
    inputs = [x.to(dtype) for x in inputs[:6]] + [inputs[6].float()]
    grads = (grads[0].to(dtype), grads[1].float())
    truth = run(wkv7, double(inputs), grads, backend="reference")
    found = interpreter("differentiated", "wkv7", inputs, grads, form="chunks")
    assert found["out"].dtype == found["dr"].dtype == dtype
    # Over six draws the gradient of b was 1.2e-2 to 2.2e-2 off, the others at most 1.8e-2.
    bf16 = dict.fromkeys(found, 2e-2) | {"db": 2.5e-2}
    agree(found, truth, bf16 if dtype == torch.bfloat16 else 2**-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("used", ["out", "end"])
def test_only_one_output_is_used_and_no_state_given(draw, agree, interpreter, used, form):
    inputs, grads = draw(wkv7, 2, 20, 1, 32, 32)
    which = ("out", "end").index(used)
    inputs, grads = single(inputs[:6]), [g if i == which else None for i, g in enumerate(grads)]
    leaves = [x.double().requires_grad_() for x in inputs]
    outputs = wkv7(*leaves, backend="reference")
    truth = torch.autograd.grad(outputs[which], leaves, grads[which], allow_unused=True)
    found = interpreter("differentiated", "wkv7", [*inputs, None], grads, form=form)
    for label, x in zip(("dr", "dw", "dk", "dv", "da", "db"), truth, strict=True):
        agree({label: found[label]}, {label: torch.zeros_like(found[label]) if x is None else x}, 1e-6)


@pytest.mark.slow
def test_opcheck_and_fullgraph(draw, interpreter):
    inputs, grads = draw(wkv7, 1, 20, 1, 32, 32)
    inputs, bounds = single(inputs), torch.tensor([0, 20])
    compiled, plain = interpreter("checked", "wkv7", inputs, [g.float() for g in grads], bounds)
    torch.testing.assert_close(compiled, plain)


def test_sizes_it_cannot_take(draw, interpreter):
    inputs, grads = draw(wkv7, 1, 2, 1, 16, 16)
    message = r"^wkv7: backend 'triton' cannot run here: keys and values must have the same size, 32, 64, 128, got 16"
    with pytest.raises(RuntimeError, match=message):
        interpreter("differentiated", "wkv7", single(inputs), grads)
