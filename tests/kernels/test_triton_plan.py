"""Choices of the host for the Triton kernels."""

import pytest
import torch

from mmrnn_kernels.common.triton.plan import CHUNK, gpu_mode
from mmrnn_kernels.wkv6.triton import plan


@pytest.mark.parametrize("processors", [1, 108, 132, 304])
@pytest.mark.parametrize("programs", [1, 12, 64, 200, 1000])
@pytest.mark.parametrize("longest", [17, 511, 512, 1024, 5000, 24_000])
def test_pieces_cover_the_longest_sequence(longest, programs, processors):
    span, pieces = plan.pieces(longest, programs, processors)
    assert span % CHUNK == 0
    assert (pieces - 1) * span < longest <= pieces * span
    assert pieces == 1 or span >= plan.MIN_PIECE
    if programs >= processors:
        assert pieces == 1


def test_few_heads_get_enough_programs_where_the_sequence_is_long():
    _, pieces = plan.pieces(24_000, 12, 132)
    assert 12 * pieces >= 2 * 132
    mode = gpu_mode({torch.bfloat16}, "cuda")
    assert plan.max_columns(64, mode) == 64
    assert plan.columns(64, mode, 12, 132) == 32
    assert plan.columns(64, mode, 132, 132) == 64


@pytest.mark.parametrize(("target", "hopper"), [("cuda", False), ("cuda", True), ("hip", False)])
@pytest.mark.parametrize(("types", "size"), [((torch.bfloat16,), 128), ((torch.float32,), 64), ((torch.float16,), 32)])
def test_tiles_divide_the_state(target, hopper, types, size):
    mode = gpu_mode(set(types), target, hopper)
    for tile in (plan.max_columns(size, mode), plan.backward_keys(size, mode)):
        assert size % tile == 0
        assert tile >= 16


def test_factors_are_rounded_to_what_the_inputs_are():
    bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32
    assert gpu_mode({bf16}, "cuda").dot_type == gpu_mode({bf16}, "hip").dot_type == "bf16"
    assert gpu_mode({fp16}, "cuda").dot_type == gpu_mode({fp16, bf16}, "cuda").dot_type == "tf32"
    assert gpu_mode({bf16, fp32}, "cuda").dot_type == gpu_mode({fp16}, "hip").dot_type == "ieee"
