"""A fast product is the product, and a packed copy is never an old one."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import pytest
import torch
from torch.nn import functional as F

from mmrnn_kernels import decode_step
from mmrnn_kernels import linear as fast
from mmrnn_kernels.linear import PackedWeight, linear


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=[True, False], ids=["packing pays", "packing does not pay"])
def paying(request, monkeypatch):
    if request.param and not fast.can_pack():
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(fast, "is_faster", lambda: request.param)
    return request.param


def spy(monkeypatch, *names):
    """Count the calls of each of these functions of the module."""
    counts = dict.fromkeys(names, 0)

    def counted(name, plain):
        def call(*inputs):
            counts[name] += 1
            return plain(*inputs)

        return call

    for name in names:
        monkeypatch.setattr(fast, name, counted(name, getattr(fast, name)))
    return counts


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(1,), (3,), (8,), (2, 9), (2, 100)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_the_same_numbers(paying, rows, bias, kept, dtype, tolerance):
    x, weight = torch.randn(*rows, 64).to(dtype), torch.randn(37, 64).to(dtype)
    shift = torch.randn(37).to(dtype) if bias else None
    found = linear(x, weight, shift, PackedWeight() if kept else None)
    exact = F.linear(x.double(), weight.double(), None if shift is None else shift.double())
    assert found.shape == exact.shape
    assert found.dtype == dtype
    assert (found - exact).abs().max() <= tolerance * exact.abs().max()


@pytest.mark.parametrize("rows", [(1,), (3,), (8,), (2, 9), (0,)])
@pytest.mark.parametrize("size", [(37, 64), (64, 40)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_products_with_codes(rows, size, dtype, tolerance, monkeypatch):
    """Few rows of a width that the native code takes are multiplied by it; all are the product with codes * scales."""
    calls, native = [], decode_step.few_rows_linear
    monkeypatch.setattr(decode_step, "few_rows_linear", lambda *inputs: calls.append(1) or native(*inputs))
    codes, scales = torch.randint(-128, 128, size, dtype=torch.int8), torch.rand(size[0])
    x = torch.randn(*rows, size[1]).to(dtype)
    found = fast.codes_linear(x, codes, scales)
    exact = x.double() @ (codes.double() * scales.double()[:, None]).T
    assert found.dtype == dtype
    assert found.shape == exact.shape
    assert ((found - exact).abs() <= tolerance * exact.abs().max()).all() if len(exact) else found.numel() == 0
    few = rows in [(1,), (3,), (8,)] and size[1] == 64 and decode_step.unavailable_reason() is None
    assert len(calls) == few


def test_many_rows_are_packed_for_one_call_and_few_read_the_weight_in_place(monkeypatch, paying):
    counts, weight = spy(monkeypatch, "pack", "multiply"), torch.randn(32, 64)
    for rows in (1, fast.max_in_place_rows(weight.dtype), fast.MIN_PACKED_ROWS - 1):
        linear(torch.randn(rows, 64), weight)
    assert counts == {"pack": 0, "multiply": 0}
    linear(torch.randn(fast.MIN_PACKED_ROWS, 64), weight)
    assert counts == {"pack": int(paying), "multiply": int(paying)}


def test_a_kept_copy_is_made_once_and_anew_after_every_change(monkeypatch):
    monkeypatch.setattr(fast, "is_faster", fast.can_pack)
    if not fast.can_pack():
        pytest.skip("torch has no oneDNN here")
    counts, pack, x = spy(monkeypatch, "pack"), PackedWeight(), torch.randn(5, 64)
    weight = torch.nn.Parameter(torch.randn(32, 64))

    def right():
        torch.testing.assert_close(linear(x, weight, None, pack), F.linear(x, weight))
        return counts["pack"]

    assert [right(), right()] == [1, 1]
    weight.mul_(2)
    assert [right(), right()] == [2, 2]
    weight.data = torch.randn(32, 64)
    assert [right(), right()] == [3, 3]
    optimizer = torch.optim.SGD([weight], lr=0.1)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert [right(), right()] == [4, 4]
    weight = torch.nn.Parameter(weight.detach().clone())
    assert [right(), right()] == [5, 5]
    for twin in (copy.deepcopy(pack), pickle.loads(pickle.dumps(pack))):
        assert twin.entry is None


def test_another_weight_at_the_address_of_an_earlier_one_is_packed(monkeypatch):
    monkeypatch.setattr(fast, "pack", lambda weight, rows: weight.clone())
    kept, memory = PackedWeight(), bytearray(16)
    for value in (1.0, 2.0):
        weight = torch.frombuffer(memory, dtype=torch.float32)
        weight.numpy()[:] = value  # which torch does not count
        assert kept.get(weight, 1)[0] == value


def test_threads_that_share_a_kept_copy_each_get_that_of_their_weight(monkeypatch):
    monkeypatch.setattr(fast, "pack", lambda weight, rows: weight.clone())
    kept, wrong = PackedWeight(), []

    def work(value):
        weight = torch.full((2, 2), value)
        for _ in range(3000):
            found = kept.get(weight, 1)
            if found is None or found[0, 0] != value:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(float(value),)) for value in range(3)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert wrong == []


def test_gradients_and_autocast_go_the_ordinary_way(monkeypatch):
    monkeypatch.setattr(fast, "is_faster", fast.can_pack)
    counts = spy(monkeypatch, "multiply")
    x, weight = torch.randn(200, 64), torch.nn.Parameter(torch.randn(32, 64))
    with torch.enable_grad():
        linear(x, weight, None, PackedWeight()).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0).expand(32, -1))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, None, PackedWeight()).dtype == torch.bfloat16
    assert linear(x.to("meta"), weight.to("meta")).shape == (200, 32)
    assert counts == {"multiply": 0}


@pytest.mark.parametrize("fault", [AttributeError, RuntimeError, TypeError, None])
def test_private_operators_that_are_gone_or_wrong_are_not_used(monkeypatch, fault):
    def broken(x, *_):
        if fault is not None:
            raise fault("there was such an operator once")
        return torch.zeros(len(x), 3)

    monkeypatch.setattr(fast, "multiply", broken)
    for check in (fast.can_pack, fast.is_faster):
        check.cache_clear()
    try:
        assert not fast.can_pack()
        assert not fast.is_faster()
        x, weight = torch.randn(300, 64), torch.randn(32, 64)
        for kept in (None, PackedWeight()):
            assert torch.equal(linear(x, weight, None, kept), F.linear(x, weight))
    finally:
        for check in (fast.can_pack, fast.is_faster):
            check.cache_clear()


AVX2 = """
import torch
from mmrnn_kernels import decode_step
from mmrnn_kernels import linear as fast
assert torch.backends.cpu.get_cpu_capability() == "AVX2"
with torch.no_grad():
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = torch.randn(40, 64).to(dtype), torch.randn(32, 64).to(dtype)
        kept = fast.PackedWeight()
        torch.testing.assert_close(fast.linear(x, weight, None, kept), torch.nn.functional.linear(x, weight))
        assert kept.entry is None or fast.can_pack(dtype)
"""


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="no AVX2")
def test_a_processor_with_avx2_alone():
    """torch and oneDNN held to AVX2: what they do not have there is not chosen."""
    limits = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    environment = os.environ | limits | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", AVX2], env=environment, check=True, timeout=100)


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(decode_step, "unavailable_reason", lambda: "no C++ compiler was found")
    monkeypatch.setattr(decode_step, "few_rows_linear", None)
    x, weight = torch.randn(2, 64), torch.randn(32, 64)
    assert torch.equal(linear(x, weight), F.linear(x, weight))
