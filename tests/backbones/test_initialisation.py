"""Initialisation of the RWKV backbones, as published (RWKV-LM since April 2024)."""

import pytest
import torch

from mmrnn.backbones import RWKV5, RWKV6, RWKV7

DEPTH, WIDTH, SIZE = 3, 32, 8


def made(kind):
    return kind(vocab=50, width=WIDTH, depth=DEPTH, head_size=SIZE)


@pytest.mark.parametrize("kind", [RWKV5, RWKV6, RWKV7])
def test_the_norm_after_wkv_grows_with_the_layer(kind):
    """ln_x is ((1 + layer) / depth)^0.7; every other norm is one."""
    model = made(kind)
    for layer, block in enumerate(model.blocks):
        expected = torch.full((WIDTH,), ((1 + layer) / DEPTH) ** 0.7)
        torch.testing.assert_close(block.time_mix.norm.weight.data, expected)
        assert not block.time_mix.norm.bias.any()
        assert (block.norm_time.weight == 1).all()
    assert (model.norm.weight == 1).all()


@pytest.mark.parametrize("kind", [RWKV5, RWKV6])
def test_decay_and_bonus(kind):
    """-6 + 5 (n / (A - 1))^(0.7 + 1.3 rise), and rise (1 - n / (A - 1)) + 0.1 ((n + 1) mod 3 - 1)."""
    for layer, block in enumerate(made(kind).blocks):
        rise, n = layer / (DEPTH - 1), torch.arange(WIDTH)
        place = n / (WIDTH - 1)
        mix = block.time_mix
        torch.testing.assert_close(mix.decay.data.flatten(), -6 + 5 * place ** (0.7 + 1.3 * rise))
        torch.testing.assert_close(mix.bonus.data.flatten(), rise * (1 - place) + 0.1 * ((n + 1) % 3 - 1))


@pytest.mark.parametrize("kind", [RWKV5, RWKV6, RWKV7])
def test_both_branches_of_a_block_are_zero_at_first(kind):
    model = made(kind)
    assert not any(block.time_mix.output.weight.any() for block in model.blocks)
    assert not any(block.channel_mix.value.weight.any() for block in model.blocks)
    assert model.embedding.weight.abs().max() <= 1e-4
