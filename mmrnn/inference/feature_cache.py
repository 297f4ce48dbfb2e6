"""Features of images, computed once and kept in memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn.data.image import ImageError
from mmrnn.data.preprocess import read_pixels
from mmrnn.types import Encoder, ImageSource


class FeatureCache(Mapping[str, Tensor]):
    """Features by the key of their image, read in single precision.

    Args:
        keys: of the images.
        features: of each of them.
        faults: key, message and reason of the images that could not be opened, whose features do not count; to look
            one up raises ImageError.

    Attributes:
        features: of all images, in half precision where they are cached for training.
    """

    def __init__(
        self, keys: Sequence[str], features: Float[Tensor, "m n e"], faults: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        self.faults = faults or {}
        self._rows = {key: row for row, key in enumerate(keys) if key not in self.faults}
        self.features = features

    def __getitem__(self, key: str) -> Float[Tensor, "n e"]:
        if key in self.faults:
            raise ImageError(*self.faults[key])
        return self.features[self._rows[key]].float()

    def __contains__(self, key: object) -> bool:
        return key in self._rows or key in self.faults

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def feature_shape(encoder: Encoder) -> tuple[int, int]:
    """Return the number of encoder tokens of an image and their width, where all images have one size."""
    return encoder.layout(*encoder.image.size).tokens, encoder.width


@torch.no_grad()
def encode_images(
    encoder: Encoder,
    images: Sequence[ImageSource],
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    out: Float[Tensor, "m n e"] | None = None,
    pool: Callable[[Tensor], Tensor] | None = None,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> FeatureCache:
    """Encode every image once; an image that cannot be opened is left out, with the reason.

    Args:
        encoder: in evaluation mode.
        images: each with a key of its own.
        batch_size: images that are encoded at once.
        device: of the encoder.
        out: takes the features; None: a new tensor in single precision.
        pool: function of the encoder tokens of a batch, whose result is kept in their place; None: they are kept.
        track: wraps the iteration over the first indices of the batches, to show progress.
    """
    features = torch.zeros(len(images), *feature_shape(encoder)) if out is None else out
    faults: dict[str, tuple[str, str]] = {}

    def read(start: int) -> list[Tensor | ImageError]:
        return [_pixels(image, encoder) for image in images[start : start + batch_size]]

    with ThreadPoolExecutor(1) as executor:
        # One batch is encoded while the next one is read.
        upcoming = executor.submit(read, 0)
        for start in track(range(0, len(images), batch_size)):
            found, upcoming = upcoming.result(), executor.submit(read, start + batch_size)
            faults |= {
                images[start + place].key: (str(fault), fault.reason)
                for place, fault in enumerate(found)
                if isinstance(fault, ImageError)
            }
            rows = {start + place: pixels for place, pixels in enumerate(found) if isinstance(pixels, Tensor)}
            if rows:
                encoded = encoder(torch.stack([*rows.values()]).to(device))
                features[[*rows]] = (pool(encoded) if pool else encoded).to(features)
    return FeatureCache([image.key for image in images], features, faults)


def _pixels(image: ImageSource, encoder: Encoder) -> Tensor | ImageError:
    """Pixels of an image, or the reason why it cannot be opened."""
    try:
        return read_pixels(image, encoder.image)
    except ImageError as fault:
        return fault
