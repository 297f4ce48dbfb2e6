"""Encoder-free patches."""

import torch

from mmrnn.encoders import PatchEmbed, Patchify
from mmrnn.encoders.patch import sincos


def test_a_patch_sees_only_itself():
    encoder = PatchEmbed(patch=4, width=16, size=12)
    images = torch.zeros(1, 3, 12, 12)
    changed = images.clone()
    changed[:, :, 4:8, 8:12] = 1.0
    different = (encoder(images) != encoder(changed)).any(dim=-1)[0]
    assert different.nonzero().tolist() == [[1 * 3 + 2]]


def test_positions_tell_patches_apart():
    images = torch.ones(1, 3, 12, 12)
    for positions, kinds in (("learned", 9), ("sincos", 9), ("none", 1)):
        tokens = PatchEmbed(patch=4, width=16, size=12, positions=positions)(images)[0]
        assert len(tokens.round(decimals=4).unique(dim=0)) == kinds


def test_fixed_positions_serve_any_size():
    encoder = PatchEmbed(patch=4, width=16, size=12, positions="sincos")
    assert encoder(torch.zeros(2, 3, 8, 20)).shape == (2, 10, 16)
    assert encoder.layout(8, 20).cols == 5
    wide, narrow = sincos(3, 5, 16).reshape(3, 5, 16), sincos(3, 2, 16).reshape(3, 2, 16)
    torch.testing.assert_close(wide[:, :2], narrow)
    torch.testing.assert_close(wide[0, 0], torch.tensor([0.0] * 4 + [1.0] * 4).repeat(2))
    rates = torch.tensor([1.0, 0.1, 0.01, 0.001])
    torch.testing.assert_close(wide[2, 4, :4], (2 * rates).sin())
    torch.testing.assert_close(wide[2, 4, 12:], (4 * rates).cos())


def test_pixels_in_the_order_row_column_channel():
    images = torch.arange(2 * 3 * 4 * 6).float().reshape(2, 3, 4, 6)
    tokens = Patchify(patch=2, size=(4, 6))(images)
    assert tokens.shape == (2, 6, 12)
    expected = [images[1, c, 2 + row, 4 + col].item() for row in range(2) for col in range(2) for c in range(3)]
    assert tokens[1, 5].tolist() == expected
