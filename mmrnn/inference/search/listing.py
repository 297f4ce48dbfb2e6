"""Images of a folder and of the folders in it, as an index knows them."""

import os
from pathlib import Path
from typing import NamedTuple

from mmrnn.data.video import IMAGE_SUFFIXES


class Entry(NamedTuple):
    """An image file: an entry that is equal stands for a file that has not changed.

    Attributes:
        path: in its folder.
        size: in bytes.
        changed: time of the last change, in nanoseconds since 1970.
    """

    path: str
    size: int
    changed: int


class Listing(NamedTuple):
    """Image files by their path, and the folders in which nothing can be listed, with the reason."""

    entries: list[Entry]
    faults: dict[str, str]


def list_tree(folder: Path) -> Listing:
    """List the files with the endings of images in a folder and all folders in it.

    Names that begin with a dot are left out, and links to folders are not followed.

    Raises:
        ValueError: there is no such folder, or nothing in it can be listed.
    """
    faults: dict[str, str] = {}
    root = os.fspath(folder)

    def note(error: OSError) -> None:
        if error.filename == root:
            raise ValueError(f"{folder} cannot be searched: {error.strerror}; name a folder of images") from None
        faults[os.path.relpath(error.filename, root)] = error.strerror or str(error)

    found = []
    for place, folders, files in os.walk(root, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
                continue
            path = os.path.join(place, name)
            relative = os.path.relpath(path, root)
            try:
                status = os.stat(path)
            except OSError as error:  # a link to nothing, or a file that has just gone
                faults[relative] = error.strerror or str(error)
            else:
                found.append(Entry(relative, status.st_size, status.st_mtime_ns))
    return Listing(sorted(found), faults)
