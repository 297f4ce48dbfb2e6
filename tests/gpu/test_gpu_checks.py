"""Comparisons of a GPU with the CPU in fp64 (tools/gpu_checks), and the same comparisons on the CPU.

No GPU was there: those marked `gpu` have never run.
"""

from dataclasses import replace
from fnmatch import fnmatch
from unittest.mock import patch

import pytest
import torch
from gpu_checks import all_checks, backbones, decoding, operators
from gpu_checks.check import Difference, difference, equal

import mmrnn.backbones
import mmrnn_kernels
from mmrnn.inference.generate import generate
from mmrnn.types import Backbone, Batch, Sequence

CHECKS = {check.name: check for check in all_checks()}

QUICK = ("operators/*/t15/*", "operators/*/packed/fp32", "operators/*/rows/*", "backbones/*/parts/fp32")
QUICK += (
    "operators/norm_gate/v48/*",
    "operators/lerp/*/fp32",
    "decoding/*/continued/*",
    "training/*/fp32",
    "training/*/pieces",
    "training/*/logits/*",
)


def quick(name):
    return any(fnmatch(name, glob) for glob in QUICK)


def misfits(found):
    assert found
    return [str(one) for one in found if not one.fits]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("name", CHECKS)
def test_the_gpu_agrees(name):
    assert not misfits(CHECKS[name]("cuda"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if quick(name) else pytest.mark.slow) for name in CHECKS])
def test_the_cpu_agrees(name):
    assert not misfits(CHECKS[name]("cpu"))


def test_every_operator_is_checked_in_every_type():
    found = {tuple(name.split("/")[1::2]) for name in CHECKS if name.startswith("operators/")}
    operators = set(mmrnn_kernels.__all__) - {"Segments"}  # an input of operators
    assert found == {(name, word) for name in operators for word in ("fp32", "bf16", "fp16")}


def test_every_backbone_of_this_library_is_checked():
    classes = {name: getattr(mmrnn.backbones, name) for name in mmrnn.backbones.__all__}
    known = {name for name, cls in classes.items() if Backbone in cls.__mro__}
    assert known == {*backbones.SIZES, *backbones.ELSEWHERE}
    for room in ("backbones", "decoding", "training"):
        assert {name.split("/")[1] for name in CHECKS if name.startswith(f"{room}/")} == {*backbones.SIZES}


def test_a_wrong_operator_is_found(monkeypatch):
    right = mmrnn_kernels.relu_square

    def wrong(x, *, backend="auto"):
        return right(x, backend=backend) * (1 if backend == "reference" else 1.01)

    monkeypatch.setattr(mmrnn_kernels, "relu_square", wrong)
    failed = misfits(CHECKS["operators/relu_square/rows/fp32"]("cpu"))
    assert [line.split(":")[0] for line in failed] == ["auto out0", "auto dx", "chunked out0", "chunked dx"]


def test_a_lost_state_and_a_lost_gradient_are_found(monkeypatch):
    right = mmrnn_kernels.wkv6

    def wrong(*, state, backend, **inputs):
        return right(**inputs, state=state if backend == "reference" else 0 * state, backend=backend)

    monkeypatch.setattr(mmrnn_kernels, "wkv6", wrong)
    failed = {line.split(":")[0] for line in misfits(CHECKS["operators/wkv6/t15/bf16"]("cpu"))}
    assert {"auto out0", "auto out1", "auto dstate", "auto dr"} <= failed


def test_differences():
    truth = torch.tensor([1.0, -4.0])
    assert difference("x", torch.tensor([1.0, -3.0]), truth, 0.3) == Difference("x", 0.25, 0.3)
    assert not difference("x", torch.tensor([1.0, torch.nan]), truth, 0.3).fits
    assert not difference("x", torch.ones(3), truth, 9.0).fits
    assert not replace(difference("x", truth, truth, 0.0), error=float("nan")).fits
    assert equal("ids", [[1]], [[1]]).fits
    assert not equal("ids", [[1]], [[2]]).fits


def test_full_precision_gives_the_settings_back():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    CHECKS["operators/relu_square/rows/fp32"]("cpu")
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize("name", backbones.SIZES)
def test_greedy_replies_have_no_near_ties(name):
    """Rounding in fp32 cannot choose another token."""
    _, truth = decoding.models(name, torch.device("cpu"))
    margins, head = [], truth.backbone.head

    def recording(hidden):
        logits = head(hidden)
        best = logits.topk(2).values
        margins.append(((best[:, 0] - best[:, 1]) / best.abs().amax(1)).min().item())
        return logits

    with patch.object(truth.backbone, "head", recording):
        generate(truth, Batch(Sequence(backbones.ids(38))), max_new_tokens=decoding.TOKENS)
    assert min(margins) > 2e-4


def test_backends_are_asked_for_by_name_on_a_gpu():
    assert "auto" not in operators.backends(torch.device("cuda"))
