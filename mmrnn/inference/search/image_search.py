"""Search in a folder of images: its index is kept up to date, and the nearest images to a query are found in it."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from mmrnn.data.collate import IMAGE, PreparedSample
from mmrnn.data.image import ImageError, ImageFile
from mmrnn.inference.embedding import embed_prepared, prepare_image, require_embedder, similarity
from mmrnn.inference.fingerprint import weights_fingerprint
from mmrnn.inference.reader import DialogueReader
from mmrnn.inference.search.index_file import FORMAT, ImageIndex, IndexWriter
from mmrnn.inference.search.listing import Entry, list_tree
from mmrnn.io.atomic import replace_file
from mmrnn.model.vlm import VLM

ROUND = 300.0
"""Seconds after which the images that were embedded so far are written, and stay if the process is killed."""

Prepared = list[tuple[Entry, PreparedSample | ImageError]]


class Match(NamedTuple):
    """An image that was found: its path in the folder, and its similarity to the query (a cosine)."""

    path: str
    score: float


class Update(NamedTuple):
    """An index that is up to date, and what that took.

    Attributes:
        index: with all images of the folder.
        added: number of images that are new or have changed.
        removed: number of images that are gone or have changed.
        faults: paths in the folder that cannot be opened, with the reason.
    """

    index: ImageIndex
    added: int
    removed: int
    faults: dict[str, str]


def maker(model: VLM) -> str:
    """Return a fingerprint of what the vectors of images depend on: weights, and preparation of an image."""
    facts = [FORMAT, weights_fingerprint(model), repr(model.modalities[IMAGE].image)]
    return sha256(json.dumps(facts).encode()).hexdigest()[:16]


def index_path(folder: Path, model: VLM) -> Path:
    """Return the place of the index of a folder, in it: each model has a file of its own."""
    return folder / f".mmrnn-{maker(model)}.safetensors"


def update_index(
    reader: DialogueReader,
    folder: Path,
    path: Path,
    *,
    batch_size: int = 32,
    round_seconds: float = ROUND,
    track: Callable[[range], Iterable[int]] = iter,
) -> Update:
    """Bring the index of a folder up to date: images that are new or have changed are embedded, all others are kept.

    A call that is interrupted leaves an index of what was embedded, with which the next call continues.

    Args:
        reader: of the model.
        folder: of the images, with the folders in it.
        path: of the index; where nothing has changed it is not written.
        batch_size: images that are embedded at once.
        round_seconds: time between two versions of the file, while many images are embedded.
        track: wraps the iteration over the batches, to show progress.

    Raises:
        FileNotFoundError: the folder of the index does not exist.
        ValueError: the folder cannot be listed, the model embeds no images, or the index is damaged or was made by
            another model.
        DiskFullError: there is no space for the index.
    """
    require_embedder(reader.model)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} for the index")
    made_by, listing = maker(reader.model), list_tree(folder)
    index = ImageIndex(path) if path.is_file() else None
    if index is not None and index.maker != made_by:
        raise ValueError(f"{path} was made by another model; delete it, or name another file")
    known = {*index.images, *index.faults} if index else set()
    pending = [entry for entry in listing.entries if entry not in known]
    removed = len(known.difference(listing.entries))
    if index is None or pending or removed:
        batches = _prepare(reader, folder, pending, batch_size, track)
        index = _Indexing(reader, path, made_by, set(listing.entries)).run(index, batches, round_seconds)
    faults = {entry.path: reason for entry, reason in index.faults.items()}
    return Update(index, len(pending), removed, listing.faults | faults)


def search(index: ImageIndex, query: Float[Tensor, "1 q w"], count: int) -> list[Match]:
    """Return the images of an index that are nearest to a query, the nearest first.

    Args:
        index: of images.
        query: vectors of a text or an image.
        count: most images that are returned.

    Raises:
        ValueError: the index is damaged, or its vectors have another size than those of the query.
    """
    best: list[Match] = []
    for entries, vectors in index.chunks():
        scores, places = similarity(query, vectors)[0].topk(min(count, len(entries)))
        found = zip(places.tolist(), scores.tolist(), strict=True)
        best += [Match(entries[place].path, score) for place, score in found]
        best = sorted(best, key=lambda match: (-match.score, match.path))[:count]
    return best


class _Indexing:
    """Versions of an index, each with the images of the one before that are still there, and further ones."""

    def __init__(self, reader: DialogueReader, path: Path, made_by: str, there: set[Entry]) -> None:
        self.reader, self.path, self.made_by, self.there = reader, path, made_by, there
        self.finished = False
        self.interrupt: KeyboardInterrupt | None = None

    def run(self, index: ImageIndex | None, batches: Iterator[Prepared], seconds: float) -> ImageIndex:
        """Write versions, each after so many seconds, until all batches are in one."""
        while not self.finished:
            replace_file(self.path, lambda new, old=index: self._write(new, old, batches, seconds))
            if self.interrupt is not None:
                raise self.interrupt
            index = ImageIndex(self.path)
        return index

    def _write(self, new: Path, old: ImageIndex | None, batches: Iterator[Prepared], seconds: float) -> None:
        end = time.monotonic() + seconds
        with new.open("wb") as file:
            writer = IndexWriter(file, self.made_by)
            if old is not None:
                self._copy(old, writer)
            try:
                for batch in batches:
                    self._embed(batch, writer)
                    if time.monotonic() >= end:
                        break
                else:
                    self.finished = True
            except KeyboardInterrupt as interrupt:
                self.interrupt = interrupt
            writer.finish()

    def _copy(self, old: ImageIndex, writer: IndexWriter) -> None:
        for entries, vectors in old.chunks():
            if rows := [row for row, entry in enumerate(entries) if entry in self.there]:
                writer.add([entries[row] for row in rows], vectors[rows])
        writer.faults |= {entry: reason for entry, reason in old.faults.items() if entry in self.there}

    def _embed(self, batch: Prepared, writer: IndexWriter) -> None:
        opened = [(entry, image) for entry, image in batch if not isinstance(image, ImageError)]
        vectors = embed_prepared(self.reader, [image for _, image in opened]) if opened else None
        if vectors is not None:
            writer.add([entry for entry, _ in opened], vectors)
        writer.faults |= {entry: image.reason for entry, image in batch if isinstance(image, ImageError)}


def _prepare(
    reader: DialogueReader,
    folder: Path,
    pending: list[Entry],
    batch_size: int,
    track: Callable[[range], Iterable[int]],
) -> Iterator[Prepared]:
    """Yield batches of images; while one is embedded, the next one is opened."""

    def read(start: int) -> Prepared:
        return [(entry, _open(reader, folder / entry.path)) for entry in pending[start : start + batch_size]]

    with ThreadPoolExecutor(1) as executor:
        upcoming = executor.submit(read, 0)
        for start in track(range(0, len(pending), batch_size)):
            found, upcoming = upcoming.result(), executor.submit(read, start + batch_size)
            yield found


def _open(reader: DialogueReader, path: Path) -> PreparedSample | ImageError:
    try:
        return prepare_image(reader, ImageFile(path))
    except ImageError as fault:
        return fault
