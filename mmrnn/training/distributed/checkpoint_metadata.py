"""Index of a `torch.distributed.checkpoint` folder, read without executing what it holds."""

import pickle
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.distributed.checkpoint import FileSystemReader, Metadata
from torch.distributed.checkpoint.metadata import StorageMeta

CLASSES = {
    "torch.distributed.checkpoint.metadata": (
        *("ChunkStorageMetadata", "BytesStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta"),
        *("TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))),
    "pathlib": ("Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
}
"""Module -> names that an index refers to."""


class SafeReader(FileSystemReader):
    """Reader of a folder whose index may name nothing but the classes of an index, and files of its own folder."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """Read the index.

        Raises:
            ValueError: it is damaged, or names something else.
            OSError: it cannot be read.
        """
        path = Path(self.path) / ".metadata"
        with path.open("rb") as file:
            try:
                metadata = _IndexUnpickler(file).load()
            except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, IndexError, KeyError) as error:
                raise ValueError(f"{path} is damaged or no index of tensors: {error}") from error
        if not isinstance(metadata, Metadata):
            raise ValueError(f"{path} is no index of tensors")
        for info in metadata.storage_data.values():
            if Path(info.relative_path).name != info.relative_path:
                raise ValueError(f"{path} names {info.relative_path!r}, which is outside of its folder")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a class of an index.

        Raises:
            pickle.UnpicklingError: it is another.
        """
        if name in CLASSES.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no index holds")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse references to things outside of the index.

        Raises:
            pickle.UnpicklingError: always.
        """
        raise pickle.UnpicklingError(f"it refers to {pid!r}, which is not in it")
