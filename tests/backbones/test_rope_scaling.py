"""Long-context scaling of Qwen-7B: dynamic NTK RoPE and log-n attention."""

import math

import pytest
import torch

from mmrnn.backbones import Transformer
from mmrnn.backbones.rope_scaling import log_n_scale, ntk_alpha
from mmrnn.types import Sequence

LENGTH = 8


def model(length=LENGTH, theta=100.0):
    torch.manual_seed(0)
    made = Transformer(vocab=40, width=16, depth=2, heads=2, ffn=24, rope_theta=theta, train_length=length)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


def ids(tokens, rows=1):
    return torch.randint(1, 40, (rows, tokens), generator=torch.Generator().manual_seed(2))


def test_ntk_alpha_and_log_n_scale():
    tokens = torch.tensor([1, 2047, 2048, 2049, 4096, 4097, 8192, 8193])
    assert ntk_alpha(tokens, 2048).tolist() == [1, 1, 1, 3, 3, 7, 7, 15]
    scale = log_n_scale(torch.tensor([[0, 2046, 2047, 2048, 8191]]), 2048)[0]
    wanted = [1, 1, 1, math.log(2049, 2048), math.log(8192, 2048)]
    torch.testing.assert_close(scale, torch.tensor(wanted))


def test_no_scaling_within_the_length_or_in_training():
    short, long = Sequence(ids(LENGTH)), Sequence(ids(30))
    torch.testing.assert_close(model()(short)[0], model(None)(short)[0])
    assert (model()(long)[0] - model(None)(long)[0])[:, LENGTH:].abs().max() > 1e-3
    torch.testing.assert_close(model().train()(long)[0], model(None).train()(long)[0])


def test_the_base_is_that_of_ntk(monkeypatch):
    """Without log-n, a text of three times the length has the base theta * 7 ** (k / (k - 2))."""
    monkeypatch.setattr(
        "mmrnn.backbones.rope_scaling.log_n_scale",
        lambda positions, train_length: torch.ones(positions.shape) * bool(train_length),
    )
    text = Sequence(ids(3 * LENGTH))
    torch.testing.assert_close(model()(text)[0], model(None, theta=100.0 * 7 ** (8 / 6))(text)[0])


@pytest.mark.parametrize("cut", [10, 23])
def test_the_first_pass_fixes_ntk_alpha(cut):
    """From twice to four times the length the factor is the same, so chunks equal the whole."""
    made, text = model(), ids(3 * LENGTH)
    whole, _ = made(Sequence(text))
    first = 2 * LENGTH + 1
    before, state = made(Sequence(text[:, :first]))
    assert state.shared["ntk_alpha"].tolist() == [7.0]
    behind, after = made(Sequence(text[:, first:cut] if cut > first else text[:, first:]), state)
    torch.testing.assert_close(torch.cat([before, behind], 1), whole[:, : first + behind.shape[1]])
    assert after.shared["ntk_alpha"].tolist() == [7.0]
    _, grown = made(Sequence(ids(40)), state)
    assert grown.shared["ntk_alpha"].tolist() == [7.0]


def test_each_row_has_its_own_ntk_alpha():
    """A short row gives the same result in a batch with a long one as alone."""
    made, long = model(), ids(2 * LENGTH)
    short = long[0, :5]
    batch = torch.cat([long, torch.cat([torch.zeros(2 * LENGTH - 5, dtype=torch.long), short])[None]])
    segments = torch.ones_like(batch)
    segments[1, : 2 * LENGTH - 5] = 0
    hidden, state = made(Sequence(batch, segments=segments))
    assert state.shared["ntk_alpha"].tolist() == [3.0, 1.0]
    torch.testing.assert_close(hidden[1, -5:], made(Sequence(short[None]))[0][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(hidden[0], made(Sequence(long))[0][0], atol=1e-5, rtol=1e-4)
