import inspect

import pytest
import torch

from mmrnn_kernels import wkv6
from mmrnn_kernels.common.checks import check_shapes
from mmrnn_kernels.common.dtypes import accumulation_dtype
from mmrnn_kernels.dispatch import Operator


def op(**unavailable):
    return Operator("op", {"triton": lambda x: ("triton", x), "reference": lambda x: ("reference", x)}, unavailable)


def never_on_cpu(x):
    return f"it needs a CUDA tensor, got {x}"


def test_auto_takes_the_first_that_nothing_blocks():
    assert op()("auto", "cpu") == ("triton", "cpu")
    assert op(triton=lambda _: None)("auto", "cpu") == ("triton", "cpu")
    assert op(triton=never_on_cpu)("auto", "cpu") == ("reference", "cpu")


def test_a_named_backend_runs_or_says_why_not():
    assert op()("reference", "cpu") == ("reference", "cpu")
    with pytest.raises(RuntimeError, match=r"^op: backend 'triton' cannot run here: it needs a CUDA tensor, got cpu$"):
        op(triton=never_on_cpu)("triton", "cpu")


def test_auto_says_what_blocks_when_everything_does():
    with pytest.raises(RuntimeError, match=r"'triton' cannot run here: .*; backend 'reference' cannot run here: "):
        op(triton=never_on_cpu, reference=never_on_cpu)("auto", "cpu")


def test_unknown_backend():
    with pytest.raises(
        ValueError, match=r"^op: backend must be one of \['auto', 'triton', 'reference'\], got 'tritn'$"
    ):
        op()("tritn", "cpu")
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(
        ValueError,
        match=r"^wkv6: backend must be one of \['auto', 'triton', 'cpu', 'chunked', 'reference'\], got 'cuda'",
    ):
        wkv6(x, x, x, x, x[0, 0], backend="cuda")


def test_sizes_that_do_not_agree():
    r, k = torch.zeros(2, 6, 4, 64), torch.zeros(2, 5, 4, 64)
    with pytest.raises(ValueError, match=r"^wkv6: t is 6 in r \[2, 6, 4, 64\] but 5 in k \[2, 5, 4, 64\]"):
        check_shapes("wkv6", r=("b t h k", r), k=("b t h k", k))
    with pytest.raises(ValueError, match=r"^wkv6: u must be \[h k\], got \[256\]$"):
        check_shapes("wkv6", r=("b t h k", r), u=("h k", torch.zeros(256)))
    with pytest.raises(ValueError, match=r"^wkv6: r \[2, 0, 4, 64\] is empty"):
        check_shapes("wkv6", r=("b t h k", r[:, :0]))
    # Without the type checks of the tests the operator itself says it.
    with pytest.raises(ValueError, match=r"k must be \[b t h k\]"):
        inspect.unwrap(wkv6)(r, k, r, r, r[0, 0])
    with pytest.raises(ValueError, match=r"v is 64 in v .* but 32 in state"):
        inspect.unwrap(wkv6)(r, r, r, r, r[0, 0], torch.zeros(2, 4, 64, 32))


def test_accumulation_dtype():
    half, single, double = (torch.zeros(1, dtype=x) for x in (torch.bfloat16, torch.float32, torch.float64))
    assert accumulation_dtype(half, half, None) == torch.float32
    assert accumulation_dtype(half, single) == torch.float32
    assert accumulation_dtype(single, double, None) == torch.float64
