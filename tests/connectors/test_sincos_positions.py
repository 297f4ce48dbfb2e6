"""SinCosPositions tell apart what stands in different places, and nothing else."""

import pytest
import torch

from mmrnn.connectors import SinCosPositions
from mmrnn.connectors.sincos_positions import relative_positions
from mmrnn.types import Layout


def test_every_place_is_told_apart():
    table = relative_positions(5, 7, 16).flatten(0, 1)
    distance = torch.cdist(table, table) + 10 * torch.eye(35)
    assert distance.min() > 0.3


def test_grids_of_other_sizes_agree_on_the_same_place():
    torch.testing.assert_close(relative_positions(1, 1, 8)[0, 0], relative_positions(3, 3, 8)[1, 1])


def test_only_patches_get_a_place():
    layout, tokens = Layout(rows=2, cols=3, prefix=1, suffix=2), torch.randn(2, 9, 8)
    part = SinCosPositions(8, scale=2.0)
    added = part(tokens, layout) - tokens
    assert added[:, [0, 7, 8]].abs().max() == 0
    torch.testing.assert_close(added[0, 1:7].view(2, 3, 8), 2 * relative_positions(2, 3, 8), atol=1e-5, rtol=0)
    assert part.layout(layout) == layout


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"width \(6\) must be a multiple of 4"):
        SinCosPositions(6)
    with pytest.raises(ValueError, match="chain a Linear after it"):
        SinCosPositions(8, 16)
    with pytest.raises(ValueError, match="pass a layout"):
        SinCosPositions(8)(torch.randn(1, 4, 8))
