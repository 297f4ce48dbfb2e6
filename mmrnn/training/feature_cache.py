"""Features of a frozen encoder, computed once and kept in memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn.data.image import to_tensor
from mmrnn.model.vlm import Modality
from mmrnn.training.trainer import Precision, autocast
from mmrnn.types.sample import ImageSource


class FeatureCache(Mapping[str, Tensor]):
    """Features of images by their key, in half precision; reading gives single precision."""

    def __init__(self, keys: Sequence[str], features: Float[Tensor, "m n e"]):
        self._rows = {key: row for row, key in enumerate(keys)}
        self._features = features

    def __getitem__(self, key: str) -> Float[Tensor, "n e"]:
        return self._features[self._rows[key]].float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def is_frozen(modality: Modality) -> bool:
    """Whether the encoder answers the same to an image at every step."""
    return not any(parameter.requires_grad for parameter in modality.encoder.parameters())


def bytes_needed(modality: Modality, images: int) -> int:
    """What a cache of so many images takes."""
    layout = modality.encoder.layout(*modality.image.size)
    return 2 * images * layout.tokens * modality.encoder.width


@torch.inference_mode()
def cache_features(
    modality: Modality,
    images: Sequence[ImageSource],
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> FeatureCache:
    """Encode every image once.

    Args:
        track: wraps the iteration over the batches' first numbers, to show progress.
    """
    layout = modality.encoder.layout(*modality.image.size)
    features = torch.empty(len(images), layout.tokens, modality.encoder.width, dtype=torch.float16)
    modality.encoder.eval()

    def opened(start: int) -> list[Tensor]:
        return [to_tensor(image.open(), modality.image) for image in images[start : start + batch_size]]

    with ThreadPoolExecutor(1) as beside:
        # While some are encoded, the next ones are opened.
        following = beside.submit(opened, 0)
        for start in track(range(0, len(images), batch_size)):
            pixels, following = following.result(), beside.submit(opened, start + batch_size)
            with autocast(precision, device):
                features[start : start + len(pixels)] = modality.encode(torch.stack(pixels).to(device)).cpu()
    return FeatureCache([image.key for image in images], features)
