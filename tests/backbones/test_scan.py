"""Scans permute the patches only."""

import pytest
import torch

from mmrnn.backbones import scan
from mmrnn.backbones.rwkv import reorder
from mmrnn.types import ImageSpan, Layout, Sequence

NAMES = ["forward", "bidirectional", "multidirectional", "spiral", "snake", "zigzag"]
SIZES = [(1, 1), (1, 5), (4, 1), (3, 3), (2, 5), (6, 4)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_orders_are_permutations(name, rows, cols):
    for layer in range(5):
        order = getattr(scan, name)(layer, Layout(rows=rows, cols=cols))
        if order is not None:
            assert sorted(order.tolist()) == list(range(rows * cols))


def test_the_published_orders():
    layout = Layout(rows=2, cols=3)
    turns = [scan.multidirectional(layer, layout) for layer in range(4)]
    assert turns[0] is None
    assert [turn.tolist() for turn in turns[1:]] == [[5, 4, 3, 2, 1, 0], [0, 3, 1, 4, 2, 5], [5, 2, 4, 1, 3, 0]]
    assert scan.bidirectional(0, layout) is None
    assert scan.bidirectional(3, layout).tolist() == [5, 4, 3, 2, 1, 0]
    assert scan.snake(0, layout).tolist() == [0, 1, 2, 5, 4, 3]
    assert scan.spiral(0, Layout(rows=3, cols=3)).tolist() == [0, 1, 2, 5, 8, 7, 6, 3, 4]


@pytest.mark.parametrize("name", NAMES)
def test_the_inverse_after_the_order_is_the_identity_and_only_patches_move(name):
    layouts = (Layout(rows=3, cols=2, prefix=2, suffix=1, separators=1), Layout(rows=2, cols=2))
    blocks = (ImageSpan(0, 1, layouts[0]), ImageSpan(1, 3, layouts[1]), ImageSpan(1, 9, layouts[1]))
    sequence = Sequence(torch.zeros(2, 16, dtype=torch.long), blocks)
    patches = torch.zeros(2, 16, dtype=torch.bool)
    for block in blocks:
        patches[block.sample, block.start + block.layout.patch_indices()] = True
    x = torch.randn(2, 16, 3)
    for order in scan.scan_permutations(getattr(scan, name), 4, sequence):
        if order is None:
            continue
        assert torch.equal(reorder(reorder(x, order), order.argsort(dim=1)), x)
        assert torch.equal(order[~patches], torch.arange(16).repeat(2, 1)[~patches])


@pytest.mark.golden
@pytest.mark.parametrize("name", ["spiral", "snake", "zigzag"])
def test_the_orders_of_the_scan_study(name, golden):
    meta, tensors = golden("visualrwkv5_scan")
    side = meta["config"]["vision"]["image_size"] // meta["config"]["vision"]["patch_size"]
    order = getattr(scan, name)(0, Layout(rows=side, cols=side))
    assert order.tolist() == tensors[f"out/v51_{name}/order"].tolist()
