"""The Triton kernels of the selective scan in the interpreter, beside the reference in fp64: values and gradients."""

import pytest
import torch

from tests.kernels.selective_scan import NAMES, draw, run, single

SLOW = ((19, "mixed"), (19, "strong"), (19, "weak"), (19, "beyond"), (50, "mixed"))
CASES = ((1, "model"), (19, "model"), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW))


@pytest.mark.parametrize(("t", "regime"), CASES)
def test_is_the_reference(agree, interpreter, t, regime):
    """40 channels: the last block of either kernel is not full."""
    inputs, grads = draw(2, t, 40, 16, regime, seed=t)
    truth = run(inputs, grads, backend="reference")
    agree(interpreter("differentiated", "selective_scan", single(inputs), grads), truth, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("s", [8, 32, 64])
def test_sizes(agree, interpreter, s):
    inputs, grads = draw(1, 18, 20, s)
    truth = run(inputs, grads, backend="reference")
    agree(interpreter("differentiated", "selective_scan", single(inputs), grads), truth, 1e-6)


def test_packed_is_one_by_one(agree, interpreter):
    lengths = (1, 17, 1, 0, 5)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    inputs, grads = draw(1, sum(lengths), 20, 16, rows=len(lengths))
    truth = run(inputs, grads, cu_seqlens=bounds, backend="reference")
    found = interpreter("differentiated", "selective_scan", single(inputs), grads, cu_seqlens=bounds)
    agree(found, truth, 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_inputs_are_computed_in_fp32(agree, interpreter, dtype):
    inputs, grads = draw(1, 19, 20, 16, "model")
    half = [x.float() if i in (2, 5) else x.to(dtype) for i, x in enumerate(inputs)]
    grads = [grads[0].to(dtype), grads[1].float()]
    truth = run([x.double() for x in half], grads, backend="reference")
    found = interpreter("differentiated", "selective_scan", half, grads)
    assert found["out"].dtype == found["ddt"].dtype == found["db"].dtype == dtype
    limit = torch.finfo(dtype).eps
    agree(found, truth, dict.fromkeys(NAMES, limit) | {"end": 1e-6, "da": 1e-6, "dstate": 1e-6})


@pytest.mark.parametrize("used", ["out", "end"])
def test_only_one_output_is_used_and_no_state_given(agree, interpreter, used):
    inputs, grads = draw(1, 6, 20, 16)
    grads = [g if name == used else None for name, g in zip(("out", "end"), grads, strict=True)]
    truth = run([*inputs[:5], 0 * inputs[5]], grads, backend="reference")
    found = interpreter("differentiated", "selective_scan", [*single(inputs[:5]), None], grads)
    agree(found, {name: truth[name] for name in found}, 1e-6)


@pytest.mark.slow
def test_opcheck_and_fullgraph(interpreter):
    inputs, grads = draw(1, 20, 20, 16)
    compiled, plain = interpreter("checked", "selective_scan", single(inputs), single(grads), torch.tensor([0, 20]))
    torch.testing.assert_close(compiled, plain)


def test_sizes_it_cannot_take(interpreter):
    inputs, grads = draw(1, 2, 4, 5)
    message = r"^selective_scan: backend 'triton' cannot run here: a channel must have 8, 16, 32, 64 states, got 5"
    with pytest.raises(RuntimeError, match=message):
        interpreter("differentiated", "selective_scan", single(inputs), grads)
