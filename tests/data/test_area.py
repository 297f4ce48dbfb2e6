"""Images fitted to an area (Qwen2-VL): multiples of a block, about their shape, and what cannot be fitted."""

import pytest
from PIL import Image

from mmrnn.data.image import ImageError
from mmrnn.data.preprocess import area_size, prepared_size, to_tensor
from mmrnn.types import ImageSpec

SPEC = ImageSpec((64, 64), resize="area", multiple=8, pixels=(256, 4096))


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((40, 24), (40, 24)),
        ((36, 20), (32, 16)),  # halves are rounded to even multiples
        ((5, 5), (16, 16)),  # enlarged to the least area
        ((100, 100), (64, 64)),
        ((1000, 10), (640, 8)),  # a side is a block at least, so the area may be exceeded
    ],
)
def test_sizes(size, wanted):
    assert area_size(size, SPEC) == wanted
    assert prepared_size(size, SPEC) == wanted[::-1]
    assert to_tensor(Image.new("RGB", size), SPEC).shape == (3, *wanted[::-1])


def test_an_image_that_is_a_line_is_refused():
    with pytest.raises(ImageError, match="201 x 1 pixels is too long and narrow"):
        area_size((201, 1), SPEC)
