"""Inputs that an operator does not take are refused in one sentence that names them."""

import inspect
import re

import numpy as np
import pytest
import torch

from mmrnn_kernels import (
    gated_delta_rule,
    kda,
    lerp,
    norm_gate,
    relu_square,
    selective_scan,
    sigmoid_gate,
    token_shift,
    wkv5,
    wkv6,
    wkv7,
)

TIMED, WIDE = torch.ones(1, 4, 2, 8), torch.ones(1, 4, 16)
STARTS = torch.zeros(1, 4, dtype=torch.bool)
INPUTS = {
    wkv5: {"r": TIMED, "k": TIMED, "v": TIMED, "w": TIMED[0, 0], "u": TIMED[0, 0], "state": torch.ones(1, 2, 8, 8)},
    wkv6: {"r": TIMED, "k": TIMED, "v": TIMED, "w": TIMED, "u": TIMED[0, 0], "state": torch.ones(1, 2, 8, 8)},
    wkv7: dict.fromkeys("rwkvab", TIMED) | {"state": torch.ones(1, 2, 8, 8)},
    gated_delta_rule: dict.fromkeys("qkv", TIMED)
    | dict.fromkeys(("g", "beta"), TIMED[..., 0])
    | {"state": torch.ones(1, 2, 8, 8)},
    kda: dict.fromkeys("qkvg", TIMED) | {"beta": TIMED[..., 0], "state": torch.ones(1, 2, 8, 8)},
    selective_scan: {
        "x": WIDE,
        "dt": WIDE,
        "a": torch.ones(16, 3),
        "b": torch.ones(1, 4, 3),
        "c": torch.ones(1, 4, 3),
        "state": torch.ones(1, 16, 3),
    },
    lerp: {"x": WIDE, "previous": WIDE[:, 0], "weights": torch.ones(3, 16), "offsets": torch.ones(3, 1, 4, 16)},
    relu_square: {"x": WIDE},
    sigmoid_gate: {"gate": WIDE, "x": WIDE},
    norm_gate: {"x": TIMED, "gate": WIDE, "weight": WIDE[0, 0], "bias": WIDE[0, 0], "eps": 1e-5},
    token_shift: {"x": WIDE, "last": WIDE[:, 0]},
}
EVERY = [(op, name) for op, inputs in INPUTS.items() for name in inputs if name != "eps"]
WRONG = {
    "bool": torch.bool,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "complex64": torch.complex64,
    "float8_e4m3fn": torch.float8_e4m3fn,
}


def call(op, **changes):
    return inspect.unwrap(op)(**{**INPUTS[op], **changes})


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize(("op", "name"), EVERY, ids=lambda x: getattr(x, "__name__", x))
def test_types_of_numbers(op, name, kind):
    sentence = rf"{op.__name__}: {name} must be float32 or .* float64, got torch\.{kind}; convert it with \.to\("
    with pytest.raises(TypeError, match=sentence):
        call(op, **{name: INPUTS[op][name].to(WRONG[kind])})


@pytest.mark.parametrize("value", [[1.0, 2.0], np.ones((1, 4)), 1.0], ids=["list", "ndarray", "float"])
@pytest.mark.parametrize(("op", "name"), EVERY, ids=lambda x: getattr(x, "__name__", x))
def test_what_is_no_tensor(op, name, value):
    kind = type(value).__name__
    with pytest.raises(TypeError, match=rf"{op.__name__}: {name} must be a tensor of .*, got {kind}$"):
        call(op, **{name: value})


BOUNDS = {
    "list": ([0, 2, 4], TypeError, "cu_seqlens must be a tensor of int32 or int64, got list"),
    "tuple": ((0, 4), TypeError, "cu_seqlens must be a tensor of int32 or int64, got tuple"),
    "float": (torch.tensor([0.0, 4.0]), TypeError, "cu_seqlens must be int32 or int64, got torch.float32; convert"),
    "bool": (torch.tensor([False, True]), TypeError, "cu_seqlens must be int32 or int64, got torch.bool"),
    "2-D": (torch.tensor([[0, 4]]), ValueError, "cu_seqlens must be [edges], got [1, 2]"),
    "scalar": (torch.tensor(4), ValueError, "cu_seqlens must be [edges], got []"),
    "empty": (torch.zeros(0, dtype=torch.int64), ValueError, "cu_seqlens [0] is empty"),
    "negative": (torch.tensor([0, -1, 4]), ValueError, "cu_seqlens must not decrease, got [0, -1, 4]"),
}


@pytest.mark.parametrize("case", BOUNDS)
@pytest.mark.parametrize("op", [wkv5, wkv6, wkv7, gated_delta_rule, kda, selective_scan], ids=lambda op: op.__name__)
def test_bounds(op, case):
    value, error, sentence = BOUNDS[case]
    with pytest.raises(error, match=f"^{op.__name__}: {re.escape(sentence)}"):
        call(op, cu_seqlens=value, state=None)


@pytest.mark.parametrize("op", [lerp, token_shift], ids=lambda op: op.__name__)
def test_starts(op):
    call(op, starts=STARTS)
    with pytest.raises(TypeError, match=rf"{op.__name__}: starts must be bool, got torch\.int64"):
        call(op, starts=STARTS.long())  # native code would read its bytes
    with pytest.raises(ValueError, match=rf"{op.__name__}: t is 4 in x .* but 3 in starts"):
        call(op, starts=STARTS[:, :3])


def test_axes_of_the_norm():
    with pytest.raises(ValueError, match=r"norm_gate: x must be \[b t h v\], got \[4, 16\]"):
        call(norm_gate, x=WIDE[0])
