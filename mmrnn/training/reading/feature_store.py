"""Features of frozen encoders on disk, which several runs share: a file for each set of images, mapped into memory."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mmrnn.inference.feature_cache import FeatureCache
from mmrnn.io.atomic import replace_file
from mmrnn.types import ImageSource

FEATURES, FAULTS = "features", "faults"


@dataclass(frozen=True)
class FeatureStore:
    """Folder of features. Processes that write the same file at once write the same content, and one of them stays.

    Attributes:
        folder: of the files; None: nothing is kept.
        facts: all that features depend on beside the images: encoder, weights, preparation of images, precision, and
            the data that the keys of the images belong to.
    """

    folder: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def path(self, images: Sequence[ImageSource]) -> Path | None:
        """Return the file of the features of some images; None: nothing is kept."""
        if self.folder is None:
            return None
        keys = [image.key for image in images]
        digest = sha256(json.dumps([self.facts, keys], sort_keys=True, default=str).encode())
        return self.folder / f"{digest.hexdigest()[:24]}.safetensors"

    def holds(self, images: Sequence[ImageSource]) -> bool:
        """True where the features of these images are on disk."""
        path = self.path(images)
        return path is not None and path.is_file()

    def read(self, images: Sequence[ImageSource], shape: tuple[int, int]) -> FeatureCache:
        """Map the features of some images, which the folder holds.

        Args:
            images: in the order in which they were written.
            shape: encoder tokens of an image, and their width.

        Raises:
            ValueError: the file is damaged.
        """
        path, cure = self.path(images), "delete it, and the features are computed again"
        try:
            with safe_open(str(path), framework="pt") as file:
                features, metadata = file.get_tensor(FEATURES), file.metadata() or {}
            faults = {key: (str(text), str(reason)) for key, (text, reason) in json.loads(metadata[FAULTS]).items()}
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}); {cure}") from error
        if features.shape != (len(images), *shape):
            raise ValueError(f"{path} is damaged: it has the shape {tuple(features.shape)}; {cure}")
        return FeatureCache([image.key for image in images], features, faults)

    def write(self, images: Sequence[ImageSource], cache: FeatureCache) -> None:
        """Write the features of some images.

        Raises:
            DiskFullError: there is no space for them; nothing is left behind.
        """
        tensors, metadata = {FEATURES: cache.features}, {FAULTS: json.dumps(cache.faults)}
        path = self.path(images)
        if path is not None:
            replace_file(path, lambda new: save_file(tensors, str(new), metadata), cache.features.nbytes)
