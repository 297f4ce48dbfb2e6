from functools import partial

import pytest
import torch
from torch import nn

from mmrnn.connectors import (
    MLP,
    GatedLinear,
    GatedMLP,
    Identity,
    Linear,
    Merge,
    Pool,
    QFormer,
    Sequential,
)
from mmrnn.types import Layout

SMALL = partial(QFormer, queries=5, width=16, depth=2, heads=2, ffn=24)


def test_every_part_asks_the_one_before_it():
    chain = Sequential(12, 40, parts=[Identity, partial(Merge, rows=1, cols=4), partial(MLP, hidden=20)])
    assert chain.width == 40
    assert chain.parts[2].layers[0].in_features == 48
    assert chain.layout(Layout(4, 8)) == Layout(4, 2)
    assert chain(torch.randn(2, 32, 12), Layout(4, 8)).shape == (2, 8, 40)


def test_a_part_in_the_middle_keeps_its_own_width():
    chain = Sequential(12, 40, parts=[SMALL, Linear])
    assert [part.width for part in chain.parts] == [16, 40]
    assert isinstance(chain.parts[0].head, nn.Identity)


def test_layout_follows_the_tokens():
    chain = Sequential(3, parts=[partial(Pool, grid=4), partial(Pool, grid=2)])
    tokens = torch.randn(2, 65, 3)
    expected = Pool(3, grid=2)(tokens, Layout(8, 8, prefix=1))
    torch.testing.assert_close(chain(tokens, Layout(8, 8, prefix=1)), expected)


def test_chain_of_chains():
    inner = partial(Sequential, parts=[partial(Pool, grid=2)])
    chain = Sequential(3, 5, parts=[inner, Linear])
    assert chain(torch.randn(1, 16, 3), Layout(4, 4)).shape == (1, 4, 5)


def test_last_part_without_a_choice():
    with pytest.raises(ValueError, match="Merge emits width 12 and cannot make it 5; chain a Linear after it"):
        Sequential(3, 5, parts=[Merge])
    with pytest.raises(ValueError, match="at least one connector"):
        Sequential(3, 5, parts=[])


@pytest.mark.parametrize(
    "part",
    [
        Linear,
        partial(Linear, bias=False),
        MLP,
        partial(MLP, depth=1),
        partial(MLP, depth=3, norm=True, act="silu"),
        GatedMLP,
        GatedLinear,
        SMALL,
        partial(Sequential, parts=[SMALL, Linear]),
        partial(Sequential, parts=[partial(Pool, grid=-1), Linear]),
    ],
)
def test_no_layout_is_needed_where_no_grid_is(part):
    connector = part(12, 20).eval()
    tokens = torch.randn(2, 7, 12)
    torch.testing.assert_close(connector(tokens), connector(tokens, Layout(1, 6, prefix=1)))


@pytest.mark.parametrize("part", [Linear, MLP, GatedMLP, GatedLinear, Identity])
def test_width_is_kept_where_no_other_is_asked_for(part):
    assert part(12).width == 12
    assert part(12)(torch.randn(1, 3, 12)).shape == (1, 3, 12)
    assert part(12).layout(Layout(1, 3)) == Layout(1, 3)


def test_identity_keeps_the_width():
    with pytest.raises(ValueError, match="Identity emits width 12 and cannot make it 20; chain a Linear after it"):
        Identity(12, 20)


def test_depth_and_activation():
    kinds = [type(layer) for layer in MLP(3, 4, depth=3, act="relu").layers]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    with pytest.raises(ValueError, match=r"depth \(0\) must be at least 1"):
        MLP(3, depth=0)


def test_gates():
    x = torch.randn(2, 3, 6)
    gated = GatedMLP(6, 4)
    p = gated.proj(x)
    torch.testing.assert_close(gated(x), gated.output(torch.sigmoid(gated.gate(p)) * p))
    gated = GatedLinear(6, 4)
    torch.testing.assert_close(gated(x), gated.norm(gated.output(x * torch.sigmoid(gated.gate(x)))))
