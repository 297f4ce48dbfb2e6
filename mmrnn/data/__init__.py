"""Data: samples, readers of data sets, image preprocessing, batches and the order of samples."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrnn.data.collate import Collator
    from mmrnn.data.demo.dataset import DemoVQA
    from mmrnn.data.demo.grid_dataset import DemoQuestions
    from mmrnn.data.few_shot import FewShot
    from mmrnn.data.frame_grid import FrameGrid, frame_grids
    from mmrnn.data.image import ImageError, ImageFile, InMemoryImage, image_source, open_image
    from mmrnn.data.mixture import Mixture
    from mmrnn.data.preprocess import to_tensor
    from mmrnn.data.readers.captions import Captions
    from mmrnn.data.readers.interleaved import InterleavedDocuments
    from mmrnn.data.readers.llava import LLaVAJson
    from mmrnn.data.readers.parquet import Parquet
    from mmrnn.data.readers.text import PlainText
    from mmrnn.data.readers.webdataset import WebDataset
    from mmrnn.data.sampler import MagicPrimeOrder, ShuffledOrder
    from mmrnn.data.video import VIDEO, Frame, frames, video_frames

__all__ = [
    "VIDEO",
    "Captions",
    "Collator",
    "DemoQuestions",
    "DemoVQA",
    "FewShot",
    "Frame",
    "FrameGrid",
    "ImageError",
    "ImageFile",
    "InMemoryImage",
    "InterleavedDocuments",
    "LLaVAJson",
    "MagicPrimeOrder",
    "Mixture",
    "Parquet",
    "PlainText",
    "ShuffledOrder",
    "WebDataset",
    "frame_grids",
    "frames",
    "image_source",
    "open_image",
    "to_tensor",
    "video_frames",
]

_MODULES = {
    "collate": ("Collator",),
    "demo.dataset": ("DemoVQA",),
    "demo.grid_dataset": ("DemoQuestions",),
    "few_shot": ("FewShot",),
    "frame_grid": ("FrameGrid", "frame_grids"),
    "image": ("ImageFile", "ImageError", "InMemoryImage", "image_source", "open_image"),
    "mixture": ("Mixture",),
    "preprocess": ("to_tensor",),
    "readers.captions": ("Captions",),
    "readers.interleaved": ("InterleavedDocuments",),
    "readers.llava": ("LLaVAJson",),
    "readers.parquet": ("Parquet",),
    "readers.text": ("PlainText",),
    "readers.webdataset": ("WebDataset",),
    "sampler": ("MagicPrimeOrder", "ShuffledOrder"),
    "video": ("VIDEO", "Frame", "frames", "video_frames"),
}


def __getattr__(name: str) -> Any:
    for home, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"mmrnn.data.{home}"), name)
    raise AttributeError(f"module 'mmrnn.data' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
