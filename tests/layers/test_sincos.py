"""Position tables."""

import torch

from mmrnn.layers.sincos import geometric_frequencies, sincos_2d


def table(rows, cols, width):
    return sincos_2d(torch.arange(rows), torch.arange(cols), geometric_frequencies(width // 4))


def test_the_row_comes_before_the_column_and_the_sine_before_the_cosine():
    wide, narrow = table(3, 5, 16), table(3, 2, 16)
    torch.testing.assert_close(wide[:, :2], narrow)
    torch.testing.assert_close(wide[0, 0], torch.tensor([0.0] * 4 + [1.0] * 4).repeat(2))
    frequencies = torch.tensor([1.0, 0.1, 0.01, 0.001])
    torch.testing.assert_close(geometric_frequencies(4), frequencies)
    torch.testing.assert_close(wide[2, 4, :4], (2 * frequencies).sin())
    torch.testing.assert_close(wide[2, 4, 12:], (4 * frequencies).cos())
