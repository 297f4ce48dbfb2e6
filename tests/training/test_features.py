"""Features computed ahead are what the encoder makes of each picture."""

from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from mmrnn.config import build, compose
from mmrnn.data import PictureError, to_tensor
from mmrnn.training.features import cache_features

BATCH = 3


@dataclass(frozen=True)
class Grey:
    level: int

    @property
    def key(self) -> str:
        return f"grey {self.level}"

    def open(self) -> Image.Image:
        if self.level < 0:
            raise PictureError("there is no such grey")
        return Image.new("RGB", (20, 20), (self.level,) * 3)


@pytest.fixture
def sense():
    return build(compose("model=visualrwkv6_tiny")).senses["image"].eval()


@pytest.mark.parametrize("count", [1, BATCH, 2 * BATCH + 1])
def test_each_picture_has_its_own(sense, count):
    pictures = [Grey(30 * number) for number in range(count)]
    cache = cache_features(sense, pictures, batch=BATCH, precision="fp32")
    assert list(cache) == [picture.key for picture in pictures]
    for picture in pictures:
        with torch.no_grad():
            alone = sense.encode(to_tensor(picture.open(), sense.image)[None])[0]
        torch.testing.assert_close(cache[picture.key], alone, atol=2e-3, rtol=2e-3)


def test_a_picture_that_cannot_be_opened_is_told(sense):
    with pytest.raises(PictureError, match="no such grey"):
        cache_features(sense, [Grey(1), Grey(2), Grey(3), Grey(-1), Grey(5)], batch=BATCH, precision="fp32")
