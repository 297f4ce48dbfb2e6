"""Features of a frozen encoder for a run: which are computed ahead, and by which process."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice

import torch

from mmrnn.data.left_out import LeftOut
from mmrnn.inference.feature_cache import FeatureCache, encode_images, feature_shape
from mmrnn.io.disk import DiskFullError
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training.distributed.world import World
from mmrnn.training.ends import StopSignals
from mmrnn.training.precision import Precision, autocast
from mmrnn.training.reading.feature_store import FeatureStore
from mmrnn.training.trackers.console import Console
from mmrnn.types import MapDataset
from mmrnn.types.sample import ImageSource


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


def bytes_needed(modality: Modality) -> int:
    """Return the size of the features of an image, which are stored in half precision."""
    tokens, width = feature_shape(modality.encoder)
    return 2 * tokens * width


@torch.inference_mode()
def cache_features(
    modality: Modality,
    images: Sequence[ImageSource],
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
    world: World | None = None,
) -> FeatureCache:
    """Encode every image once, in half precision; an image that cannot be opened is left out, with the reason.

    Each process encodes a part of the images, and all have the features of all.

    Args:
        modality: the encoder and its image specification.
        images: each with a key of its own.
        batch_size: images that are encoded at once.
        device: of the encoder.
        precision: of the encoder.
        track: wraps the iteration over the first indices of the batches, to show progress.
        world: the processes; None: this one alone.
    """
    world = world or World()
    features = torch.zeros(len(images), *feature_shape(modality.encoder), dtype=torch.float16)
    modality.encoder.eval()
    bounds = [len(images) * rank // world.size for rank in range(world.size + 1)]
    own = slice(bounds[world.rank], bounds[world.rank + 1])
    with autocast(precision, device):
        found = encode_images(
            modality.encoder, images[own], batch_size=batch_size, device=device, out=features[own], track=track
        )
    world.share_slices(features, bounds)
    faults = {key: fault for one in world.gather(found.faults) for key, fault in one.items()}
    return FeatureCache([image.key for image in images], features, faults)


def images_to_cache(
    model: VLM, datasets: Mapping[str, MapDataset], trained: Collection[str], *, max_gib: float, console: Console
) -> dict[str, list[ImageSource]]:
    """Return the images of each dataset whose features are to be cached; their encoder is frozen, and memory allows it.

    Args:
        model: the model.
        datasets: by name.
        trained: names of the parameters that any stage trains.
        max_gib: for the features of one dataset; 0: none are cached.
        console: names datasets that need more.
    """
    if not max_gib or not is_cacheable(model, trained):
        return {}
    chosen = {}
    for name, dataset in datasets.items():
        most = int(max_gib * 2**30 / bytes_needed(model.modalities["image"]))
        # Not all of them are listed: a dataset of millions would be read from end to end.
        images = list(islice(dataset.images(), most + 1))
        if len(images) > most:
            console.say(
                f"the features of more than {most} images do not fit into feature_cache_gib={max_gib}: "
                "they are computed at every step"
            )
        elif images:
            chosen[name] = images
    return chosen


def cache_datasets(
    modality: Modality,
    images: Mapping[str, Sequence[ImageSource]],
    *,
    batch_size: int,
    device: torch.device | str,
    precision: Precision,
    console: Console,
    signals: StopSignals,
    world: World | None = None,
    store: FeatureStore | None = None,
) -> dict[str, FeatureCache]:
    """Return the cached features of each dataset: read from disk, where they are kept there, or computed.

    Args:
        modality: the encoder and its image specification.
        images: by the name of their dataset.
        batch_size: images that are encoded at once.
        device: of the model.
        precision: of the encoder.
        console: shows the progress.
        signals: one of them ends it.
        world: the processes, which divide the images; None: this one alone.
        store: where features are kept on disk; None: nowhere.

    Raises:
        StoppedRun: this process received a signal.
        ValueError: a file of the store is damaged.
    """
    caches, world, store = {}, world or World(), store or FeatureStore()
    for name, chosen in images.items():
        if world.on_main(lambda chosen=chosen: store.holds(chosen)):
            caches[name] = store.read(chosen, feature_shape(modality.encoder))
        else:
            track = signals.checked(console.tracker(f"features: {name}"))
            caches[name] = cache_features(
                modality, chosen, batch_size=batch_size, device=device, precision=precision, track=track, world=world
            )
            if world.main:
                _keep(store, chosen, caches[name], console)
            if store.folder is not None and world.on_main(lambda chosen=chosen: store.holds(chosen)):
                caches[name] = store.read(chosen, feature_shape(modality.encoder))  # mapped: processes share the memory
        if faults := caches[name].faults:
            console.say(
                f"{name}: {len(faults)} of {len(chosen)} images are left out: "
                f"{LeftOut.of((key, reason) for key, (_, reason) in faults.items())}"
            )
    return caches


def _keep(store: FeatureStore, images: Sequence[ImageSource], cache: FeatureCache, console: Console) -> None:
    try:
        store.write(images, cache)
    except DiskFullError as error:
        console.say(f"features are not kept on disk, and training continues: {error}")
