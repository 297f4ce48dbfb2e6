import pytest
import torch

from mmrnn.connectors import MeanPool, Pool
from mmrnn.types import Layout

CLIP = Layout(24, 24, suffix=1)


@pytest.mark.parametrize(
    ("grid", "tokens"),
    [(-1, 577), (0, 1), (1, 2), (2, 5), (3, 10), (4, 17), (5, 37), (6, 37), (8, 65), (12, 145), (24, 577)],
)
def test_tokens_of_the_paper(grid, tokens):
    assert Pool(4, grid=grid).layout(CLIP).tokens == tokens


def test_cls_stays_where_it_is():
    patches, cls = torch.randn(2, 24, 3), torch.randn(2, 1, 3)
    for grid in (0, 1, 2):
        pool = Pool(3, grid=grid)
        first = pool(torch.cat([cls, patches], 1), Layout(4, 6, prefix=1))
        last = pool(torch.cat([patches, cls], 1), Layout(4, 6, suffix=1))
        torch.testing.assert_close(first[:, :1], cls)
        torch.testing.assert_close(last[:, -1:], cls)
        torch.testing.assert_close(first[:, 1:], last[:, :-1])
        assert pool.layout(Layout(4, 6, prefix=1)).prefix == 1
        assert pool.layout(Layout(4, 6, suffix=1)).suffix == 1


def test_cells_are_means_row_by_row():
    tokens = torch.arange(24.0).view(1, 24, 1)
    cells = Pool(1, grid=2)(tokens, Layout(4, 6))
    rows = tokens.view(4, 6)
    expected = [rows[y : y + 2, x : x + 3].mean() for y in (0, 2) for x in (0, 3)]
    torch.testing.assert_close(cells.flatten(), torch.stack(expected))


def test_incomplete_cells_are_dropped():
    tokens = torch.arange(25.0).view(1, 25, 1)
    cells = Pool(1, grid=2)(tokens, Layout(5, 5))
    torch.testing.assert_close(cells.flatten(), torch.tensor([3.0, 5.0, 13.0, 15.0]))


def test_mean_of_everything():
    tokens = torch.randn(2, 10, 3)
    torch.testing.assert_close(MeanPool(3)(tokens), tokens.mean(1, keepdim=True))
    assert MeanPool(3).layout(Layout(3, 3, prefix=1)) == Layout(prefix=1)


def test_all_patches_need_no_layout():
    tokens = torch.randn(2, 10, 3)
    assert Pool(3, grid=-1)(tokens) is tokens


@pytest.mark.parametrize(
    ("grid", "layout", "message"),
    [
        (2, None, "needs the layout of its 16 tokens"),
        (2, Layout(5, 5), "got 16 tokens, but their layout has 25"),
        (2, Layout(4, 3, separators=1), "1 row separators"),
        (2, Layout(prefix=16), r"needs patches, but the layout has none \(0 x 0\)"),
        (5, Layout(4, 4), r"grid \(5\) must not exceed the 4 x 4 patches"),
    ],
)
def test_errors(grid, layout, message):
    with pytest.raises(ValueError, match=message):
        Pool(3, grid=grid)(torch.randn(1, 16, 3), layout)


def test_there_has_to_be_a_cls_token():
    with pytest.raises(ValueError, match="keeps the CLS token only, but there is none"):
        Pool(3, grid=0).layout(Layout(4, 4))
    with pytest.raises(ValueError, match="keeps the CLS token only, but there is none"):
        Pool(3, grid=0)(torch.randn(1, 16, 3), Layout(4, 4))


def test_knobs():
    with pytest.raises(ValueError, match=r"grid \(-2\)"):
        Pool(3, grid=-2)
    with pytest.raises(ValueError, match="Pool emits width 3 and cannot make it 4; chain a Linear"):
        Pool(3, 4, grid=1)
    assert Pool(3, 3, grid=1).width == 3
