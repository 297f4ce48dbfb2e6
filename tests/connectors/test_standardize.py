"""Channels of very different scales come out alike."""

import torch

from mmrnn.connectors import Standardize


def test_channels_get_one_scale():
    part, tokens = Standardize(3), torch.randn(8, 5, 3) * torch.tensor([0.01, 1.0, 100.0]) + torch.tensor([5.0, 0, -7])
    out = part(tokens).flatten(0, 1)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(3), atol=0.06, rtol=0)


def test_what_was_measured_holds_for_a_single_image():
    part = Standardize(3)
    for _ in range(200):
        part(3 * torch.randn(16, 4, 3) + 2)
    part.eval()
    one = part(3 * torch.randn(500, 4, 3)[:1].expand(1, 4, 3) + 2)
    assert one.abs().max() < 6
    torch.testing.assert_close(part(torch.full((1, 1, 3), 2.0)), torch.zeros(1, 1, 3), atol=0.2, rtol=0)
