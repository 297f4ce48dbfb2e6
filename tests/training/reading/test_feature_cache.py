"""Features computed ahead are what the encoder makes of each image."""

from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from mmrnn.config.compose import compose
from mmrnn.data import ImageError, to_tensor
from mmrnn.model.build import build
from mmrnn.training.reading.feature_cache import cache_features

BATCH = 3


@dataclass(frozen=True)
class Grey:
    level: int

    @property
    def key(self) -> str:
        return f"grey {self.level}"

    def open(self) -> Image.Image:
        if self.level < 0:
            raise ImageError("there is no such grey")
        return Image.new("RGB", (20, 20), (self.level,) * 3)


@pytest.fixture
def modality():
    return build(compose("model=visualrwkv6_tiny")).modalities["image"].eval()


@pytest.mark.parametrize("count", [1, BATCH, 2 * BATCH + 1])
def test_each_image_has_its_own(modality, count):
    images = [Grey(30 * number) for number in range(count)]
    cache = cache_features(modality, images, batch_size=BATCH, precision="fp32")
    assert list(cache) == [image.key for image in images]
    for image in images:
        with torch.no_grad():
            alone = modality.encode(to_tensor(image.open(), modality.image)[None])[0]
        torch.testing.assert_close(cache[image.key], alone, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("broken", [1, BATCH, 2 * BATCH + 1])
def test_an_image_that_cannot_be_opened_is_left_out(modality, broken):
    images = [Grey(-number - 1 if number < broken else 30 * number) for number in range(2 * BATCH + 1)]
    cache = cache_features(modality, images, batch_size=BATCH, precision="fp32")
    assert list(cache) == [image.key for image in images[broken:]]
    faults = dict.fromkeys(
        (image.key for image in images[:broken]), ("there is no such grey", "an image cannot be read")
    )
    assert cache.faults == faults
    assert all(image.key in cache for image in images)
    with pytest.raises(ImageError, match="no such grey"):
        cache[images[0].key]
    if broken < len(images):
        alone = cache_features(modality, images[-1:], precision="fp32")[images[-1].key]
        torch.testing.assert_close(cache[images[-1].key], alone, atol=2e-3, rtol=2e-3)
