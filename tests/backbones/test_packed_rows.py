"""Packed rows: their segments are read once, and the blocks wait for no value of a tensor."""

import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmrnn.backbones import RWKV5, RWKV6, RWKV7
from mmrnn.backbones.packed_rows import SegmentBounds
from mmrnn.types import Sequence
from mmrnn_kernels import Segments, wkv6
from mmrnn_kernels.common import segments as kernel_segments

SEGMENTS = torch.arange(20).repeat(2, 1) // 7
READING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")


class Reads(TorchDispatchMode):
    """Names of the operators that hand values of tensors to Python, or whose sizes depend on values."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.found += [name] if name in READING else []
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", ["auto", "chunked", "reference"])
@pytest.mark.parametrize("cls", [RWKV5, RWKV6, RWKV7])
def test_blocks_read_no_values(cls, backend):
    model = cls(vocab=20, width=32, depth=2, head_size=16, backend=backend)
    bounds = SegmentBounds.of(SEGMENTS, None)
    x, shared = torch.randn(2, 20, 32, requires_grad=True), ()
    with Reads() as reads:
        for block, state in zip(model.blocks, model.state(2).layers, strict=True):
            x, _, shared = block(x, state, bounds, shared)
        x.sum().backward()
    assert reads.found == []


def test_segments_are_read_once_for_all_layers(monkeypatch):
    seen, plain = [], kernel_segments.segment_lengths
    monkeypatch.setattr(kernel_segments, "segment_lengths", lambda *inputs: seen.append(inputs) or plain(*inputs))
    model = RWKV6(vocab=20, width=32, depth=3, head_size=16)
    model(Sequence(torch.randint(20, (2, 20)), segments=SEGMENTS))
    assert len(seen) == 1


def test_prepared_segments_give_the_same():
    edges = torch.tensor([0, 3, 3, 16, 20])
    r, k, v, w = (torch.randn(1, 20, 2, 8) for _ in range(4))
    prepared = Segments.of(edges)
    found = wkv6(r, k, v, w, r[0, 0], cu_seqlens=prepared), wkv6(r, k, v, w, r[0, 0], cu_seqlens=edges)
    assert all(map(torch.equal, *found))
    with pytest.raises(ValueError, match=r"^wkv6: cu_seqlens must go from 0 to t = 19, got segments of 20"):
        wkv6(*(x[:, :19] for x in (r, k, v, w)), r[0, 0], cu_seqlens=prepared)
    with pytest.raises(ValueError, match=r"^wkv6: cu_seqlens needs b = 1, got b = 2"):
        wkv6(*(x.view(2, 10, 2, 8) for x in (r, k, v, w)), r[0, 0], cu_seqlens=prepared)
    with pytest.raises(ValueError, match=r"^Segments: cu_seqlens must not decrease"):
        Segments.of(torch.tensor([0, 5, 4]))


SCRIPT = """
import torch
from mmrnn.backbones import RWKV5, RWKV6, RWKV7
from mmrnn.backbones.packed_rows import SegmentBounds

for cls in (RWKV5, RWKV6, RWKV7):
    torch._dynamo.reset()
    block = cls(vocab=20, width=32, depth=2, head_size=16).blocks[1]
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    state = cls(vocab=20, width=32, depth=2, head_size=16).state(2).layers[1]
    shared = (torch.randn(2, 40, 32),) if cls is RWKV7 else ()
    for length in (9, 4, 40):
        bounds = SegmentBounds.of(torch.arange(40).repeat(2, 1) // length, torch.tensor([5, 0]))
        x = torch.randn(2, 40, 32, requires_grad=True)
        found, truth = ([*f(x, state, bounds, shared)[:2]] for f in (compiled, block))
        for values in (found, truth):
            values += torch.autograd.grad(values[0].square().sum(), x)
        torch.testing.assert_close(found, truth)
"""


@pytest.mark.slow
def test_compiled_blocks():
    """In a process of its own: what the tests check types with does not trace."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
