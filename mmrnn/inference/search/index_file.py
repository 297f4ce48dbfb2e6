"""Index of a folder of images on disk: a safetensors file that is written and read in pieces.

It holds `vectors` (fp16, images x vectors of an image x width) and `entries` (JSON: path, size and time of change of
every image in their order, and of those that cannot be opened with the reason). Its metadata names what made it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmrnn.inference.search.listing import Entry

FORMAT = "mmrnn.search.1"

HEADER = 1024
"""Bytes of the header, which is filled up with blanks: its numbers are known when all vectors are written."""

MAX_ENTRIES = 2**28
"""Most bytes of the entries."""

ROWS = 1024
"""Images whose vectors are in memory at once."""


class IndexWriter:
    """Writes an index into an open file, vectors first.

    Args:
        file: empty, open for writing.
        maker: fingerprint of what makes the vectors.
    """

    def __init__(self, file: BinaryIO, maker: str) -> None:
        self.file, self.maker = file, maker
        self.images: list[Entry] = []
        self.faults: dict[Entry, str] = {}
        self._shape: tuple[int, ...] = (0, 0)
        self.file.write(b" " * (8 + HEADER))

    def add(self, entries: Sequence[Entry], vectors: Float[Tensor, "n q w"]) -> None:
        """Append images with their vectors: all of them, or none where the call is interrupted."""
        self._shape = (*vectors.shape[1:],)
        self.file.seek(self._end())
        self.file.write(vectors.to(torch.float16).contiguous().numpy().tobytes())
        self.images += entries

    def finish(self) -> None:
        """Write the entries, and the header.

        Raises:
            ValueError: the paths are longer than an index can hold.
        """
        content = {"images": self.images, "faults": [[*entry, reason] for entry, reason in self.faults.items()]}
        text = json.dumps(content, separators=(",", ":")).encode("ascii")
        if len(text) > MAX_ENTRIES:
            raise ValueError(f"the paths of {len(self.images):,} images are too long for an index; search a subfolder")
        self.file.seek(self._end())
        self.file.truncate()
        self.file.write(text)
        end = self._end() - 8 - HEADER
        header = {
            "__metadata__": {"format": FORMAT, "maker": self.maker},
            "vectors": {"dtype": "F16", "shape": [len(self.images), *self._shape], "data_offsets": [0, end]},
            "entries": {"dtype": "U8", "shape": [len(text)], "data_offsets": [end, end + len(text)]},
        }
        self.file.seek(0)
        self.file.write(HEADER.to_bytes(8, "little") + json.dumps(header).encode().ljust(HEADER))

    def _end(self) -> int:
        """Place in the file behind the vectors of all images."""
        return 8 + HEADER + len(self.images) * prod(self._shape) * torch.float16.itemsize


class ImageIndex:
    """An index that `IndexWriter` has written; vectors are read in pieces.

    Args:
        path: of the file.

    Attributes:
        maker: fingerprint of what made the vectors.
        images: in the order of their vectors.
        faults: images that cannot be opened, with the reason.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or no index.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file, self.maker = _open(path)
            self.images, self.faults = _parse_entries(_tensor(self._file, "entries", "U8", 1))
            self._vectors = _tensor(self._file, "vectors", "F16", 3)
            rows, *sizes = self._vectors.get_shape()
            if rows != len(self.images) or (rows and 0 in sizes):
                raise ValueError(f"it has vectors {rows} x {' x '.join(map(str, sizes))} of {len(self.images)} images")
        except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
            raise ValueError(
                f"{path} is damaged or no index of images: {error}; delete it, or name another file"
            ) from error

    def chunks(self) -> Iterator[tuple[list[Entry], Float[Tensor, "n q w"]]]:
        """Yield images with their vectors in single precision, some at a time.

        Raises:
            ValueError: a vector is not of unit length.
        """
        for start in range(0, len(self.images), ROWS):
            vectors = self._vectors[start : start + ROWS].float()
            if not (vectors.norm(dim=-1) - 1).abs().le(1e-2).all():  # NaN is not, either
                raise ValueError(f"{self.path} is damaged: its vectors are not of unit length; delete it")
            yield self.images[start : start + ROWS], vectors


def _open(path: Path) -> tuple[Any, str]:
    """Open file, and its fingerprint of what made it."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no index {path}")
    with path.open("rb") as file:
        if (size := int.from_bytes(file.read(8), "little")) != HEADER:
            raise ValueError(f"its header has {size} bytes and not {HEADER}")
    file = safe_open(str(path), "pt")
    known: Mapping[str, str] = file.metadata() or {}
    if known.get("format") != FORMAT or "maker" not in known or {*file.keys()} != {"vectors", "entries"}:
        raise ValueError(f"its format is {known.get('format')!r} and not {FORMAT!r}")
    return file, known["maker"]


def _tensor(file: Any, name: str, dtype: str, axes: int) -> Any:
    """A tensor of the file, of which nothing is read yet."""
    found = file.get_slice(name)
    if found.get_dtype() != dtype or len(found.get_shape()) != axes:
        raise ValueError(f"{name} has {len(found.get_shape())} axes of {found.get_dtype()}")
    return found


def _parse_entries(content: Any) -> tuple[list[Entry], dict[Entry, str]]:
    """Images, and those with a fault, of a tensor of which nothing is read yet."""
    [size] = content.get_shape()
    if size > MAX_ENTRIES:
        raise ValueError(f"its entries have {size} bytes")
    try:
        parsed = json.loads(content[:].numpy().tobytes())
        images = [_entry(*one) for one in parsed["images"]]
        faults = {_entry(*one): reason for *one, reason in parsed["faults"]}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"its entries are not readable ({type(error).__name__})") from None
    if len({one.path for one in (*images, *faults)}) != len(images) + len(faults):
        raise ValueError("an image comes twice")
    if not all(isinstance(reason, str) for reason in faults.values()):
        raise ValueError("the reason of a fault is no text")
    return images, faults


def _entry(path: Any, size: Any, changed: Any) -> Entry:
    if not isinstance(path, str) or type(size) is not int or type(changed) is not int:
        raise TypeError("an entry is a path and two numbers")
    return Entry(path, size, changed)
