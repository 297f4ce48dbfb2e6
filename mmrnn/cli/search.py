"""`mmrnn search`: find the images of a folder that are nearest to a text or to an image."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.cli.ask import RUNS, newest
from mmrnn.cli.options import Parser, add_run, natural, split_trusted, to_path
from mmrnn.cli.reply_options import CONTROLS
from mmrnn.config.error import ConfigError
from mmrnn.io.disk import DiskFullError

if TYPE_CHECKING:
    from torch import Tensor

    from mmrnn.inference.assistant import Assistant
    from mmrnn.inference.search.image_search import Update

MAX_NAMED = 20
"""Images that cannot be opened and are named; further ones are counted."""


def parser() -> Parser:
    """Parser of `mmrnn search`."""
    made = Parser(
        "search",
        "QUERY FOLDER [trusted=[PACKAGE,...]] [OPTION ...]",
        """
Find the images of a folder, and of the folders in it, that are nearest to a text or to an image. The model is one that
was trained with a contrastive objective (BLIP-2's first stage: recipe=blip2_stage1). Every image is embedded once: the
vectors are kept in an index in the folder, and images that are new, changed or gone are noticed by their path, size
and time of change. Names that begin with a dot are left out.
""",
        """
  mmrnn search "a dog on a beach" photos/
  mmrnn search photo.jpg photos/ --top 5 --json             images like another one
  mmrnn search "a dog" photos/ --run runs/blip2 --index photos.safetensors
""",
    )
    made.add_argument("query", metavar="QUERY", help="a text, in quotation marks, or the file of an image")
    made.add_argument("folder", metavar="FOLDER", type=to_path, help="folder of images")
    add_run(made)
    made.add_argument("-k", "--top", type=natural, default=10, metavar="N", help="number of images to print")
    made.add_argument(
        "--rerank",
        type=natural,
        metavar="N",
        help="order the N nearest images again, by a head that reads each with the text (default: the cosine alone)",
    )
    made.add_argument("--json", action="store_true", help="print an object a line: query, image, score")
    made.add_argument("--index", type=to_path, metavar="FILE", help="file of the index (default: one in the folder)")
    made.add_argument("--device", metavar="NAME", help="cpu, cuda, mps, ... (default: a CUDA GPU where there is one)")
    made.add_argument("--batch-size", type=natural, default=32, metavar="N", help="images that are embedded at once")
    return made


def main(arguments: Sequence[str]) -> int:
    """Print a line for each image that is found, the nearest first.

    Returns:
        The exit code: 1 where the folder holds no image that can be opened.

    Raises:
        ConfigError: wrong usage, no finished run, a model that embeds nothing, a query that cannot be opened, or an
            index that is damaged or was made by another model.
    """
    words, trusted = split_trusted(arguments)
    options = parser().parse(words)
    run = options.run or newest(RUNS)
    if options.rerank and _is_file(Path(options.query)):
        raise ConfigError("search: --rerank reads images with a text, and the query is an image; leave it out")
    if not options.folder.is_dir():
        raise ConfigError(f"search: {options.folder} is no folder; name a query and a folder of images")

    from mmrnn.config.device import choose_device
    from mmrnn.inference.load import load
    from mmrnn.inference.search.image_search import search
    from mmrnn.inference.search.rerank import rerank

    try:
        device = choose_device(options.device)
        assistant = load(run, trusted=trusted)
        assistant.model.to(device)
        query = _embed(assistant, options.query)
        found = _update(assistant, options)
        matches = search(found.index, query, max(options.top, options.rerank or 0))
        if options.rerank:
            nearest = matches[: options.rerank]
            sizes = {"batch_size": options.batch_size}
            matches = (
                rerank(assistant.reader, options.folder, nearest, options.query, **sizes) + matches[len(nearest) :]
            )
    except ValueError as fault:
        raise ConfigError(f"search: {fault}") from fault
    _report(found, options)
    for match in matches[: options.top]:
        path = options.folder / match.path
        if options.json:
            print(json.dumps({"query": options.query, "image": str(path), "score": match.score}))
        else:
            print(f"{match.score:.4f}\t{_shown(path)}")
    return int(not matches)


def _update(assistant: "Assistant", options: Namespace) -> "Update":
    """The index of the folder, brought up to date."""
    from mmrnn.inference.search.image_search import index_path, update_index
    from mmrnn.training.trackers.console import Console

    path = options.index or index_path(options.folder, assistant.model)
    track = Console().tracker("images")
    try:
        return update_index(assistant.reader, options.folder, path, batch_size=options.batch_size, track=track)
    except DiskFullError:
        raise
    except OSError as fault:
        reason = fault.strerror or fault
        raise ConfigError(f"search: no index at {path}: {reason}; name a file elsewhere with --index FILE") from fault


def _embed(assistant: "Assistant", query: str) -> "Tensor":
    """Vectors of the query: of an image, where there is such a file, else of the text."""
    from mmrnn.data.video import IMAGE_SUFFIXES

    path = Path(query)
    if _is_file(path):
        return assistant.embed(image=path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise ConfigError(f"search: there is no image {query}; a text to search for has no such ending")
    return assistant.embed(text=query)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that is too long for a name, or has a null character
        return False


def _report(found: "Update", options: Namespace) -> None:
    """Say on stderr what has changed since the last search, and which images cannot be opened."""
    if found.added or found.removed:
        place = _shown(found.index.path)
        counts = f"{found.added:,} images new or changed, {found.removed:,} gone or changed"
        print(f"mmrnn: {counts}; index: {place}", file=sys.stderr)
    if found.faults:
        total = len(found.index.images) + len(found.faults)
        print(f"mmrnn: {len(found.faults):,} of {total:,} images cannot be opened:", file=sys.stderr)
    for path, reason in [*found.faults.items()][:MAX_NAMED]:
        print(f"  {_shown(options.folder / path)}: {_shown(reason)}", file=sys.stderr)
    if len(found.faults) > MAX_NAMED:
        print(f"  and {len(found.faults) - MAX_NAMED:,} more", file=sys.stderr)
    if not found.index.images:
        print(f"mmrnn: {options.folder} holds no image that can be opened", file=sys.stderr)


def _shown(text: Path | str) -> str:
    """A path, or the reason of a fault, as a terminal can print it."""
    return str(text).encode("utf-8", "backslashreplace").decode().translate(CONTROLS)
