"""The causal depthwise convolution: as torch's, in parts, and with packed rows."""

import pytest
import torch

from mmrnn.layers.short_conv import ShortConvolution


@pytest.fixture(params=[False, True], ids=["plain", "bias"])
def conv(request):
    return ShortConvolution(5, 4, bias=request.param)


def test_it_is_torchs_convolution_with_zeros_in_front(conv):
    x = torch.randn(2, 9, 5)
    padded = torch.nn.functional.pad(x.mT, (3, 0))
    found, last = conv(x, conv.state(2))
    torch.testing.assert_close(found.mT, torch.nn.functional.conv1d(padded, conv.weight, conv.bias, groups=5))
    assert torch.equal(last, x[:, -3:].mT)


@pytest.mark.parametrize("cut", [1, 2, 7])
def test_parts_are_the_whole(conv, cut):
    x = torch.randn(2, 9, 5)
    whole, end = conv(x, conv.state(2))
    first, state = conv(x[:, :cut], conv.state(2))
    second, state = conv(x[:, cut:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    assert torch.equal(state, end)
    assert state.untyped_storage().nbytes() == state.nbytes, "it owns its memory"


@pytest.mark.parametrize("lengths", [(9,), (1, 1, 7), (4, 3, 2), (6, 1, 1, 1)], ids=str)
def test_packed_rows_are_the_segments(conv, lengths):
    """The first segment continues the state; each later one starts from zeros, gradients included."""
    x, before = torch.randn(1, 9, 5, requires_grad=True), torch.randn(1, 5, 3)
    starts = torch.zeros(1, 9, dtype=torch.bool)
    starts[0, torch.tensor(lengths).cumsum(0)[:-1]] = True
    found, last = conv(x, before, starts)
    parts = [conv(part, conv.state(1) if number else before) for number, part in enumerate(x.split(lengths, 1))]
    torch.testing.assert_close(found, torch.cat([part for part, _ in parts], 1))
    torch.testing.assert_close(last, parts[-1][1])
    weights = torch.randn_like(found)
    mine, truth = (
        torch.autograd.grad((y * weights).sum(), [x, conv.weight])
        for y in (found, torch.cat([part for part, _ in parts], 1))
    )
    torch.testing.assert_close(mine, truth)
