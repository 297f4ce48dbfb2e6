"""Features of a frozen encoder, computed once and kept in memory."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn.data.preprocess import to_tensor
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training.precision import Precision, autocast
from mmrnn.training.trackers.console import Console
from mmrnn.types import MapDataset
from mmrnn.types.sample import ImageSource


class FeatureCache(Mapping[str, Tensor]):
    """Features by the key of their image; stored in half precision, read in single precision."""

    def __init__(self, keys: Sequence[str], features: Float[Tensor, "m n e"]):
        self._rows = {key: row for row, key in enumerate(keys)}
        self._features = features

    def __getitem__(self, key: str) -> Float[Tensor, "n e"]:
        return self._features[self._rows[key]].float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def is_cacheable(model: VLM, trained: Collection[str]) -> bool:
    """True where the image encoder has parameters, none of them is trained, and all images have one size.

    Args:
        model: the model.
        trained: names of the parameters that any stage trains.
    """
    if model.modalities["image"].image.variable_size:
        return False
    names = {name for name, _ in model.named_parameters() if name.startswith("modalities.image.encoder.")}
    return bool(names) and names.isdisjoint(trained)


def bytes_needed(modality: Modality, images: int) -> int:
    """Size of the features of so many images."""
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
        modality: the encoder and its image specification.
        images: each with a key of its own.
        batch_size: images that are encoded at once.
        device: of the encoder.
        precision: of the encoder.
        track: wraps the iteration over the first indices of the batches, to show progress.

    Raises:
        ImageError: an image cannot be opened.
    """
    layout = modality.encoder.layout(*modality.image.size)
    features = torch.empty(len(images), layout.tokens, modality.encoder.width, dtype=torch.float16)
    modality.encoder.eval()

    def read(start: int) -> list[Tensor]:
        return [to_tensor(image.open(), modality.image) for image in images[start : start + batch_size]]

    with ThreadPoolExecutor(1) as executor:
        # One batch is encoded while the next one is read.
        upcoming = executor.submit(read, 0)
        for start in track(range(0, len(images), batch_size)):
            pixels, upcoming = upcoming.result(), executor.submit(read, start + batch_size)
            with autocast(precision, device):
                features[start : start + len(pixels)] = modality.encode(torch.stack(pixels).to(device)).cpu()
    return FeatureCache([image.key for image in images], features)


def cache_datasets(
    model: VLM,
    datasets: Mapping[str, MapDataset],
    trained: Collection[str],
    *,
    max_gib: float,
    batch_size: int,
    device: torch.device | str,
    precision: Precision,
    console: Console,
) -> dict[str, FeatureCache | None]:
    """Cache the image features of every dataset as far as its encoder is frozen and `max_gib` allows it.

    Args:
        model: the model.
        datasets: by name.
        trained: names of the parameters that any stage trains.
        max_gib: for the features of one dataset; 0: none are cached.
        batch_size: images that are encoded at once.
        device: of the model.
        precision: of the encoder.
        console: shows the progress.

    Returns:
        A cache by the name of its dataset; None: the features are computed at every step.
    """
    caches: dict[str, FeatureCache | None] = dict.fromkeys(datasets)
    if not max_gib or not is_cacheable(model, trained):
        return caches
    modality = model.modalities["image"]
    for name, dataset in datasets.items():
        images = list(dataset.images())
        if not images:
            continue  # the dataset does not list its images
        gib = bytes_needed(modality, len(images)) / 2**30
        if gib > max_gib:
            console.say(
                f"the features of {len(images)} images need {gib:.1f} GiB, more than feature_cache_gib={max_gib}: "
                "they are computed at every step"
            )
            continue
        track = console.tracker(f"features: {name}")
        caches[name] = cache_features(
            modality, images, batch_size=batch_size, device=device, precision=precision, track=track
        )
    return caches
