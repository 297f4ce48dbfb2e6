"""What is learnt from: samples, the readers that make them, pictures as tensors, batches and the order of reading."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrnn.data.collate import Collator
    from mmrnn.data.image import File, PictureError, open_picture, to_tensor
    from mmrnn.data.llava import Llava
    from mmrnn.data.mix import Mix
    from mmrnn.data.order import Batches, CubeOrder, Shuffle
    from mmrnn.data.pictures import Pictures
    from mmrnn.data.sample import TAG, Picture, Sample, Turn
    from mmrnn.data.video import VIDEO, Frame, frames

__all__ = [
    "TAG",
    "VIDEO",
    "Batches",
    "Collator",
    "CubeOrder",
    "File",
    "Frame",
    "Llava",
    "Mix",
    "Picture",
    "PictureError",
    "Pictures",
    "Sample",
    "Shuffle",
    "Turn",
    "frames",
    "open_picture",
    "to_tensor",
]

_HOMES = {
    "collate": ("Collator",),
    "image": ("File", "PictureError", "open_picture", "to_tensor"),
    "llava": ("Llava",),
    "mix": ("Mix",),
    "order": ("Batches", "CubeOrder", "Shuffle"),
    "pictures": ("Pictures",),
    "sample": ("TAG", "Picture", "Sample", "Turn"),
    "video": ("VIDEO", "Frame", "frames"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"mmrnn.data.{home}"), name)
    raise AttributeError(f"module 'mmrnn.data' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
