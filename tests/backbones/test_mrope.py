"""Positions in three axes: images, what follows them, packed rows, and reading in parts."""

import torch

from mmrnn.backbones.positions import mrope
from mmrnn.layers.rotary import frequency_axes, rotary_angles, rotate
from mmrnn.types import SLOT, ImageSpan, Layout, Sequence

IMAGE = Layout(rows=2, cols=3)


def sequence(spans, length=14, **facts):
    ids = torch.ones(1, length, dtype=torch.long)
    for span in spans:
        ids[0, span.start : span.stop] = SLOT
    return Sequence(ids, tuple(spans), **facts)


def test_an_image_turns_by_rows_and_columns_and_takes_its_longer_side():
    found = mrope(sequence([ImageSpan(0, 3, IMAGE)]))[0]
    rows, cols = [3, 3, 3, 4, 4, 4], [3, 4, 5, 3, 4, 5]
    after = [*range(6, 11)]
    assert found[:, 0].tolist() == [0, 1, 2, *[3] * 6, *after]
    assert found[:, 1].tolist() == [0, 1, 2, *rows, *after]
    assert found[:, 2].tolist() == [0, 1, 2, *cols, *after]


def test_segments_start_anew_and_the_first_goes_on():
    segments = torch.tensor([[0] * 3 + [1] * 11])
    found = mrope(sequence([ImageSpan(0, 5, IMAGE)], segments=segments), torch.tensor([40]))[0]
    assert found[:3, 2].tolist() == [40, 41, 42]
    assert found[3:, 2].tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7]


def test_the_parts_of_a_row_have_the_positions_of_the_whole():
    """Positions behind an image continue after its largest one, which the state keeps."""
    whole = sequence([ImageSpan(0, 3, IMAGE)])
    first = mrope(whole.slice(0, 9))
    start = first[:, -1].amax(-1) + 1
    assert torch.equal(torch.cat([first, mrope(whole.slice(9, 14), start)], 1), mrope(whole))


def test_axes_take_turns_or_follow_each_other():
    assert frequency_axes((3, 2, 1), interleaved=True) == [0, 1, 2, 0, 1, 0]
    assert frequency_axes((2, 3, 1), interleaved=False) == [0, 0, 1, 1, 1, 2]
    axes = frequency_axes((11, 11, 10), interleaved=True)
    assert [axes.count(axis) for axis in range(3)] == [11, 11, 10]


def test_equal_positions_rotate_as_one_and_the_rest_of_a_head_stays():
    x, positions = torch.randn(2, 3, 5, 12), torch.randint(0, 50, (2, 5))
    three = positions[..., None].expand(-1, -1, 3)
    turned = rotate(x, rotary_angles(three, 8, 100.0, frequency_axes((2, 1, 1), interleaved=True)))
    torch.testing.assert_close(turned[..., :8], rotate(x[..., :8], rotary_angles(positions, 8, 100.0)))
    assert torch.equal(turned[..., 8:], x[..., 8:])
