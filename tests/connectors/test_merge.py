import pytest
import torch

from mmrnn.connectors import Merge
from mmrnn.types import Layout


def groups(image, **knobs):
    """Patches that end up in each token; 0 stands for padding, so patches count from 1."""
    tokens = torch.arange(1.0, image.tokens + 1).view(1, -1, 1)
    return Merge(1, **knobs)(tokens, image)[0].int().tolist()


def test_strips():
    assert groups(Layout(4, 4), rows=1, cols=4) == [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10, 11, 12],
        [13, 14, 15, 16],
    ]


def test_strips_are_a_view_of_the_raster():
    tokens = torch.randn(2, 64, 5)
    merged = Merge(5, rows=1, cols=4)(tokens, Layout(8, 8))
    torch.testing.assert_close(merged, tokens.view(2, 16, 20))


def test_space_to_depth():
    assert groups(Layout(4, 4)) == [[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]


def test_vila_order():
    merged = groups(Layout(5, 5), order="col")
    assert merged[:4] == [[1, 2, 6, 7], [11, 12, 16, 17], [21, 22, 0, 0], [3, 4, 8, 9]]
    assert merged[-1] == [25, 0, 0, 0]


def test_layout_of_a_column_order_is_transposed():
    assert Merge(1, order="row").layout(Layout(4, 6)) == Layout(2, 3)
    assert Merge(1, order="col").layout(Layout(4, 6)) == Layout(3, 2)
    by_rows, by_cols = (torch.tensor(groups(Layout(4, 6), order=order)) for order in ("row", "col"))
    assert torch.equal(by_rows.view(2, 3, 4).transpose(0, 1), by_cols.view(3, 2, 4))


def test_channels_of_a_patch_stay_together():
    tokens = torch.randn(1, 4, 3)
    torch.testing.assert_close(Merge(3)(tokens, Layout(2, 2)), tokens.view(1, 1, 12))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (None, "needs the layout of its 15 tokens"),
        (Layout(4, 4), "got 15 tokens, but their layout has 16"),
        (Layout(3, 5), r"3 x 5 patches do not divide into blocks of 2 x 2; .*pad=True"),
        (Layout(2, 7, prefix=1), "cannot keep the 1 tokens outside the grid"),
        (Layout(3, 4, separators=1), "row separators"),
    ],
)
def test_errors(layout, message):
    with pytest.raises(ValueError, match=message):
        Merge(3, pad=False)(torch.randn(1, 15, 3), layout)


def test_knobs():
    assert Merge(3).width == 12
    with pytest.raises(ValueError, match="Merge emits width 12 and cannot make it 8"):
        Merge(3, 8)
    with pytest.raises(ValueError, match="0 x 2"):
        Merge(3, rows=0)
