"""Features of a frozen encoder, computed once and kept in memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn.data.image import to_tensor
from mmrnn.data.sample import Picture
from mmrnn.training.loop import Precision, autocast
from mmrnn.vlm import Sense


class FeatureCache(Mapping[str, Tensor]):
    """Features of pictures by their key, in half precision; reading gives single precision."""

    def __init__(self, keys: Sequence[str], features: Float[Tensor, "m n e"]):
        self._rows = {key: row for row, key in enumerate(keys)}
        self._features = features

    def __getitem__(self, key: str) -> Float[Tensor, "n e"]:
        return self._features[self._rows[key]].float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def is_frozen(sense: Sense) -> bool:
    """Whether the encoder answers the same to a picture at every step."""
    return not any(parameter.requires_grad for parameter in sense.encoder.parameters())


def bytes_needed(sense: Sense, pictures: int) -> int:
    """What a cache of so many pictures takes."""
    layout = sense.encoder.layout(*sense.image.size)
    return 2 * pictures * layout.tokens * sense.encoder.width


@torch.inference_mode()
def cache_features(
    sense: Sense,
    pictures: Sequence[Picture],
    *,
    batch: int = 64,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> FeatureCache:
    """Encode every picture once.

    Args:
        track: wraps the iteration over the batches' first numbers, to show progress.
    """
    layout = sense.encoder.layout(*sense.image.size)
    features = torch.empty(len(pictures), layout.tokens, sense.encoder.width, dtype=torch.float16)
    sense.encoder.eval()

    def opened(start: int) -> list[Tensor]:
        return [to_tensor(picture.open(), sense.image) for picture in pictures[start : start + batch]]

    with ThreadPoolExecutor(1) as beside:
        # While some are encoded, the next ones are opened.
        following = beside.submit(opened, 0)
        for start in track(range(0, len(pictures), batch)):
            images, following = following.result(), beside.submit(opened, start + batch)
            with autocast(precision, device):
                features[start : start + len(images)] = sense.encode(torch.stack(images).to(device)).cpu()
    return FeatureCache([picture.key for picture in pictures], features)
