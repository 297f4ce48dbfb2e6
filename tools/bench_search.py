"""Time of one search in an index of `mmrnn search`, and memory that it takes.

    python tools/bench_search.py [IMAGES [VECTORS [WIDTH]]]

The index holds random vectors, by default 40,000 images of 32 vectors of 256 numbers (BLIP-2 as published). One text is
compared with all of them, in one thread; processor time, best of three. Memory is that of the process without pages of
files, after the searches and before the index was opened (Linux).
"""

import multiprocessing
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch.nn.functional import normalize

from mmrnn.inference.search.image_search import search
from mmrnn.inference.search.index_file import ImageIndex, IndexWriter
from mmrnn.inference.search.listing import Entry

PIECE = 1000
ROUNDS = 3


def anonymous_mib() -> float:
    """Memory of this process that is not a page of a file."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def write(path: Path, images: int, vectors: int, width: int) -> None:
    """Write an index of random vectors."""
    with path.open("wb") as file:
        writer = IndexWriter(file, "benchmark")
        for start in range(0, images, PIECE):
            entries = [Entry(f"{number}.jpg", 1, 1) for number in range(start, min(start + PIECE, images))]
            writer.add(entries, normalize(torch.randn(len(entries), vectors, width), dim=-1))
        writer.finish()


def main(images: int = 40_000, vectors: int = 32, width: int = 256) -> None:
    """Search in an index, and print size, time and memory."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        # Another process writes it: the memory that this one frees would be taken for the search.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
            executor.submit(write, path, images, vectors, width).result()
        query, best, before = normalize(torch.randn(1, 1, width), dim=-1), float("inf"), anonymous_mib()
        index = ImageIndex(path)
        for _ in range(ROUNDS):
            start = time.process_time()
            search(index, query, 10)
            best = min(best, time.process_time() - start)
        size = path.stat().st_size / 2**20
        print(f"{images:,} images, {size:.0f} MiB: {best:.2f} s; {anonymous_mib() - before:.0f} MiB more memory")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
