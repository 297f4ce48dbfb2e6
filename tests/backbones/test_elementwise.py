"""RWKV backbones with native elementwise operators, compared with the reference."""

import shutil

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmrnn.backbones import RWKV5, RWKV6, RWKV7
from mmrnn.types import Sequence
from mmrnn_kernels import elementwise
from mmrnn_kernels.common.native import build

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, build.COMPILERS)), reason=f"no C++ compiler ({', '.join(build.COMPILERS)})"
)

BATCH, LENGTH, WIDTH = 2, 80, 64
OPERATORS = {"lerp", "relu_square", "sigmoid_gate", "norm_gate"}
USED = {RWKV5: OPERATORS, RWKV6: OPERATORS, RWKV7: {"lerp", "relu_square"}}
"""Operators of each version: RWKV-7 has its bonus between norm and gate, and no gate in the channel mix."""


class RecordOperators(TorchDispatchMode):
    """Record the operators of this library that are called."""

    def __init__(self):
        super().__init__()
        self.called = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "mmrnn":
            self.called.add(func.name().removeprefix("mmrnn::"))
        return func(*args, **(kwargs or {}))


def run(design, weights, backend, sequence, dtype=torch.float32):
    """Hidden states, states and gradients by name."""
    model = design(vocab=50, width=WIDTH, depth=2, head_size=16, backend=backend).to(dtype)
    model.load_state_dict(weights)
    hidden, state = model(sequence)
    ends = [x for layer in state.layers for x in layer.values()]
    sum(x.square().sum() for x in (model.head(hidden), *ends)).backward()
    found = {"hidden": hidden.detach()} | {name: x.grad for name, x in model.named_parameters()}
    return found | {f"{i} {name}": x.detach() for i, layer in enumerate(state.layers) for name, x in layer.items()}


@pytest.mark.parametrize("rows", ["whole", "packed"])
@pytest.mark.parametrize("backend", ["cpu", "auto"])
@pytest.mark.parametrize("design", USED, ids=lambda design: design.__name__)
def test_values_and_gradients_equal_the_reference(design, backend, rows):
    assert BATCH * LENGTH * WIDTH >= elementwise.MIN_NATIVE_ELEMENTS
    torch.manual_seed(1)
    weights = design(vocab=50, width=WIDTH, depth=2, head_size=16).state_dict()
    weights = {name: x + 0.2 * torch.randn_like(x) for name, x in weights.items()}
    segments = (torch.arange(LENGTH) >= torch.tensor([[20], [0]])).long() + (torch.arange(LENGTH) >= 57)
    ids = torch.randint(0, 50, (BATCH, LENGTH))
    sequence = Sequence(ids, segments=segments if rows == "packed" else None)
    truth = run(design, weights, "reference", sequence, torch.float64)
    with RecordOperators() as recorder:
        found = run(design, weights, backend, sequence)
    assert {f"{name}_cpu{which}" for name in USED[design] for which in ("", "_backward")} <= recorder.called
    for name, x in truth.items():
        assert (found[name] - x).abs().max() <= 1e-4 * x.abs().max(), name
