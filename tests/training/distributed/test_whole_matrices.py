"""Whole matrices whose slices lie on several processes: rows that do not divide evenly, fewer matrices than ranks."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from mmrnn.training.distributed.whole_matrices import on_owners
from tests.training.distributed.ranks import run_ranks


def cubes(world):
    """Each matrix times its transpose times itself: computed whole, and by the owners of slices."""
    mesh, pairs = init_device_mesh("cpu", (world.size,)), []
    for rows in (1, 4, 5, 7):
        for count in (1, 2, 5):
            torch.manual_seed(rows + count)
            whole = [torch.randn(rows, 3) for _ in range(count)]
            found = on_owners([distribute_tensor(one, mesh, [Shard(0)]) for one in whole], lambda m: m @ m.mT @ m)
            pairs += [(b @ b.mT @ b, a.full_tensor()) for a, b in zip(found, whole, strict=True)]
    return pairs


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_functions_of_whole_matrices(ranks, tmp_path):
    for pairs in run_ranks(ranks, cubes, tmp_path):
        assert len(pairs) == 4 * (1 + 2 + 5)
        for expected, found in pairs:
            torch.testing.assert_close(found, expected)
