"""Images and videos of records: by name in a folder, as `data:` URLs, or stored with the record."""

import os
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from os.path import join
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mmrnn.data.image import MAX_PIXELS, ImageError, ImageFile, InMemoryImage, image_size
from mmrnn.data.rgb import Decoding
from mmrnn.io.errors import RecordError
from mmrnn.types import ImageSource
from mmrnn.types.records import Blob

if TYPE_CHECKING:
    from PIL.Image import Image

DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,")
"""Beginning of an image that is written into the record."""

PLAIN = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]*", re.ASCII)
"""Names that lie in the folder on every system; most do, and others take longer to check."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that is stored with its record: in a tar shard or a column of a table.

    Attributes:
        blob: bytes of the image file.
        key: stable identifier.
        folder: of the file that takes the place of missing bytes; with the limits of images.
    """

    blob: Blob
    key: str
    folder: "ImageFolder"

    def open(self) -> "Image":
        """Return the image as RGB.

        Raises:
            ImageError: it cannot be read any more, is broken, or too large.
        """
        return self.source().open()

    def size(self) -> tuple[int, int]:
        """Return width and height, from the header.

        Raises:
            ImageError: it cannot be read any more, is not an image, or too large.
        """
        return image_size(self.source())

    def source(self) -> ImageSource:
        """Return the image of the bytes, which are read, or of the file that takes their place.

        Raises:
            ImageError: they cannot be read any more.
        """
        try:
            content = self.blob.read()
            if content is None and self.blob.file_name:
                return self.folder.image(self.blob.file_name, {}, "")
        except RecordError as error:
            raise ImageError(f"{self.key}: {error}") from None
        if not isinstance(content, bytes):
            raise ImageError(f"{self.key} holds no bytes")
        return InMemoryImage(content, self.key, self.folder.max_pixels, self.folder.decoding)


@dataclass(frozen=True)
class ImageFolder:
    """Folder in which records name images.

    Attributes:
        folder: root of the names; None: that of the record file.
        verify: raise where a file is missing.
        max_pixels: larger images are refused.
        decoding: way to RGB.
        absolute_paths: accept absolute paths.
    """

    folder: str | None = None
    verify: bool = False
    max_pixels: int = MAX_PIXELS
    decoding: Decoding = "composed"
    absolute_paths: bool = False

    def image(self, name: str, stored: Mapping[str, Blob], record: str) -> ImageSource:
        """Return the image of a name.

        Args:
            name: path in the folder, `data:` URL, or key of `stored`.
            stored: files that are stored with the record.
            record: stable identifier of the record, for the key of a stored image.

        Raises:
            RecordError: the name is invalid, or the file missing.
        """
        if name in stored:
            return StoredImage(stored[name], f"{record}/{name}", self)
        if match := DATA_URL.match(name):
            return self.from_base64(name[match.end() :])
        return ImageFile(self.path(name, "image"), name, self.max_pixels, self.decoding)

    def from_base64(self, text: str) -> InMemoryImage:
        """Return an image that is written into the record.

        Raises:
            RecordError: the text is no base64.
        """
        try:
            content = b64decode(text, validate=True)
        except ValueError as error:
            raise RecordError("an image in the record is no base64", str(error)) from None
        return InMemoryImage(content, f"data:{sha256(content).hexdigest()[:32]}", self.max_pixels, self.decoding)

    def path(self, name: str, what: str) -> str:
        """Return the path of a file of a record.

        Raises:
            RecordError: it is outside the folder, in the network, or missing.
        """
        if PLAIN.fullmatch(name):
            return self._found(name, what)
        if name.startswith("file://"):
            name = unquote(name.removeprefix("file://"))
        if re.match(r"[A-Za-z][\w+.-]+://", name):
            raise RecordError(f"{what} is in the network: download it and name the file", f"{name!r:.100}")
        # Parsed as on Windows, where either slash separates; on other systems `a:b.png` is a name.
        path = PureWindowsPath(name)
        absolute = bool(path.root or (path.drive and os.name == "nt"))
        if ".." in path.parts or (absolute and not (self.absolute_paths and os.path.isabs(name))):
            cure = "; to allow absolute paths, set absolute_paths=true" if os.path.isabs(name) else ""
            raise RecordError(f"{what} is outside the folder of the images{cure}", repr(name))
        return self._found(name, what)

    def _found(self, name: str, what: str) -> str:
        whole = join(self.folder, name)
        if self.verify and not (os.path.isfile(whole) or (what == "video" and os.path.isdir(whole))):
            raise RecordError(f"{what} is not in the folder", f"{name!r} in {self.folder}")
        return whole
