import pytest
import torch

from mmrnn.connectors import QFormer
from mmrnn.types import Layout

KNOBS = {"queries": 5, "width": 16, "depth": 4, "heads": 4, "ffn": 24}


@pytest.fixture
def qformer():
    return QFormer(12, **KNOBS).eval()


def test_emits_its_own_width_or_another(qformer):
    assert qformer.width == 16
    assert qformer(torch.randn(2, 9, 12)).shape == (2, 5, 16)
    other = QFormer(12, 20, **KNOBS)
    assert other.width == 20
    assert other(torch.randn(2, 9, 12)).shape == (2, 5, 20)


def test_queries_have_no_place_in_the_image(qformer):
    assert qformer.layout(Layout(3, 3, prefix=1)) == Layout(prefix=5)


def test_order_of_the_image_tokens_does_not_matter(qformer):
    tokens = torch.randn(2, 9, 12)
    torch.testing.assert_close(qformer(tokens), qformer(tokens[:, torch.randperm(9)]))


@pytest.mark.parametrize(("every", "reading"), [(1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3]), (9, [0])])
def test_layers_that_read_the_image(every, reading):
    qformer = QFormer(12, **KNOBS, cross_every=every)
    assert [index for index, layer in enumerate(qformer.layers) if layer.cross is not None] == reading


def test_initialisation():
    qformer = QFormer(64, 32, queries=64, width=64, depth=2, heads=4, ffn=128)
    assert qformer.queries.std().item() == pytest.approx(0.02, rel=0.1)
    for layer in qformer.layers:
        assert layer.attention.query.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert layer.ffn.up.bias.abs().sum() == 0
    # The projection behind it is initialised as every other one: uniform in 1 / sqrt(width).
    assert qformer.head.weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.01)


def test_dropout_differs_between_images():
    qformer = QFormer(12, **KNOBS, dropout=0.5)
    tokens = torch.randn(1, 9, 12).expand(2, -1, -1)
    one, other = qformer(tokens)
    assert not torch.allclose(one, other)
    one, other = qformer.eval()(tokens)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"heads": 3}, r"width \(16\) must be a multiple of heads \(3\)"),
        ({"queries": 0}, r"queries \(0\) must be at least 1"),
        ({"depth": 0}, r"depth \(0\)"),
        ({"cross_every": 0}, r"cross_every \(0\)"),
    ],
)
def test_knobs(knobs, message):
    with pytest.raises(ValueError, match=message):
        QFormer(12, **KNOBS | knobs)
