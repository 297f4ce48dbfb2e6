"""Comparisons of a device with the CPU in fp64: operators, backbones, decoding and a training step.

`tests/gpu` runs them under pytest, `tools/gpu_check.py` without it. They need torch, einops and jaxtyping, and Triton
on a GPU; with `device="cpu"` they compare the CPU's own fast paths.
"""

from gpu_checks import backbones, decoding, operators, training
from gpu_checks.check import Check


def all_checks() -> list[Check]:
    """Every check, the operators first."""
    rooms = (operators, backbones, decoding, training)
    return [check for room in rooms for check in room.checks()]
