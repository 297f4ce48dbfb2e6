"""Our own files: safetensors, in shards above 5 GB, and texts beside them, replaced all at once or not at all.

New files are made in a folder `.saving` inside; renaming that to `.saved` is the moment at which the new state holds,
and only then are the files moved to their places. A writer that is killed before leaves the old files, one that is
killed after leaves a `.saved` that the next reader or writer moves on.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from mmrnn.io.tensor_files import INDEX, read_json

MODEL = "model.safetensors"
MAX_SHARD_SIZE = 5 * 10**9
"""Bytes of a shard."""

MAKING, MADE, LIST = ".saving", ".saved", "files.json"


def write(
    folder: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str], max_shard_size: int = MAX_SHARD_SIZE
) -> None:
    """Put tensors and texts (by their file names) into a folder; other files of it stay as they are."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    finish_pending_save(folder)
    making = folder / MAKING
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    shards = list(_shards(tensors, max_shard_size))
    files = [MODEL] if len(shards) == 1 else [_name(number, len(shards)) for number in range(1, len(shards) + 1)]
    for file, names in zip(files, shards, strict=True):
        save_file(_apart({name: tensors[name] for name in names}), str(making / file), metadata={"format": "pt"})
    if len(shards) > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        size = sum(value.nbytes for value in tensors.values())
        texts = {**texts, MODEL + INDEX: json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=1)}
    for name, text in texts.items():
        (making / name).write_text(text, encoding="utf-8")
    (making / LIST).write_text(json.dumps({"files": [*files, *texts]}))
    for path in making.iterdir():
        _sync(path)
    os.rename(making, folder / MADE)
    finish_pending_save(folder)


def finish_pending_save(folder: Path) -> None:
    """Finish the move of files that a killed writer has left ready.

    Raises:
        ValueError: the list of those files is none that `write` makes.
    """
    made = folder / MADE
    if not made.is_dir():
        return
    if (made / LIST).is_file():
        names = read_json(made / LIST).get("files")
        if not isinstance(names, list) or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError(f"{made / LIST} names files outside of its folder; delete {made}")
        for old in folder.glob("model*.safetensors*"):
            if old.name not in names:
                old.unlink()
        for name in names:
            if (made / name).is_file():
                (made / name).replace(folder / name)
        (made / LIST).unlink()
    shutil.rmtree(made)


def weight_file(folder: Path) -> Path | None:
    """The file of tensors, or the index of its shards, that `write` has left in a folder."""
    return next((folder / name for name in (MODEL, MODEL + INDEX) if (folder / name).is_file()), None)


def _shards(tensors: Mapping[str, Tensor], max_shard_size: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, value in tensors.items():
        if names and size + value.nbytes > max_shard_size:
            yield names
            names, size = [], 0
        names.append(name)
        size += value.nbytes
    yield names


def _name(number: int, count: int) -> str:
    return f"model-{number:05}-of-{count:05}.safetensors"


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, and none a view of another."""
    apart, seen = {}, set()
    for name, value in tensors.items():
        value = value.detach().contiguous()
        place = value.untyped_storage().data_ptr()
        whole = value.nbytes == value.untyped_storage().nbytes()
        apart[name] = value if whole and place not in seen else value.clone()
        seen.add(place)
    return apart


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
