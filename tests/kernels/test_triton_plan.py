"""What the host chooses for the Triton kernels."""

import pytest
import torch

from mmrnn_kernels.wkv6.triton import plan


@pytest.mark.parametrize("processors", [1, 108, 132, 304])
@pytest.mark.parametrize("programs", [1, 12, 64, 200, 1000])
@pytest.mark.parametrize("longest", [17, 511, 512, 1024, 5000, 24_000])
def test_pieces_cover_the_longest_sequence(longest, programs, processors):
    span, pieces = plan.span(longest, programs, processors)
    assert span % plan.CHUNK == 0
    assert (pieces - 1) * span < longest <= pieces * span
    assert pieces == 1 or span >= plan.LONG
    if programs >= processors:
        assert pieces == 1


def test_few_heads_get_enough_programs_where_the_sequence_is_long():
    _, pieces = plan.span(24_000, 12, 132)
    assert 12 * pieces >= 2 * 132
    assert plan.columns(64, 12, 132) == 32
    assert plan.columns(64, 132, 132) == 64


@pytest.mark.parametrize(("target", "hopper"), [("cuda", False), ("cuda", True), ("hip", False)])
@pytest.mark.parametrize(("types", "size"), [((torch.bfloat16,), 128), ((torch.float32,), 64), ((torch.float16,), 32)])
def test_tiles_divide_the_state(target, hopper, types, size):
    mode = plan.compiled(set(types), target, hopper)
    for tile in (plan.tile(size, mode), plan.keys(size, mode)):
        assert size % tile == 0
        assert tile >= 16


def test_factors_are_rounded_to_what_the_inputs_are():
    bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32
    assert plan.compiled({bf16}, "cuda").precision == plan.compiled({bf16}, "hip").precision == "bf16"
    assert plan.compiled({fp16}, "cuda").precision == plan.compiled({fp16, bf16}, "cuda").precision == "tf32"
    assert plan.compiled({bf16, fp32}, "cuda").precision == plan.compiled({fp16}, "hip").precision == "ieee"
