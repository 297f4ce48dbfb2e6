"""Whole matrices whose slices lie on several processes: rows that do not divide evenly, fewer matrices than ranks."""

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_functions_of_whole_matrices(launch, ranks):
    for right in launch("matrices.py", ranks):
        assert right
        assert all(right)
