"""Atomic writing of our own checkpoints: safetensors, in shards above 5 GB, and text files.

New files are written to a folder `.saving` inside the checkpoint. Renaming it to `.saved` commits them; only then are
they moved to their places. A writer that is killed before the commit leaves the old files, one that is killed after it
leaves a `.saved` whose files the next writer moves. A reader changes nothing: it reads them where they are.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mmrnn.io.disk import explain_full_disk
from mmrnn.io.tensor_files import INDEX, read_json

MODEL = "model.safetensors"
MAX_SHARD_SIZE = 5 * 10**9
"""Bytes of tensors in a file."""

STAGING, COMMITTED, FILE_LIST = ".saving", ".saved", "files.json"


def write(
    folder: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str], max_shard_size: int = MAX_SHARD_SIZE
) -> None:
    """Write tensors and text files (file name -> text) into a folder, all or none; its other files stay.

    Args:
        max_shard_size: bytes of a file of tensors.

    Raises:
        DiskFullError: there is no space for them; the old files are left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finish_pending_save(folder)
    staging = folder / STAGING
    if _is_own_folder(staging):
        shutil.rmtree(staging)
    staging.mkdir()
    try:
        with explain_full_disk(staging, sum(value.nbytes for value in tensors.values())):
            _stage(staging, tensors, texts, max_shard_size)
    except BaseException:
        shutil.rmtree(staging)
        raise
    os.rename(staging, folder / COMMITTED)
    finish_pending_save(folder)


def _stage(staging: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str], max_shard_size: int) -> None:
    """Write all files, and the list of their names, into the staging folder."""
    shards = list(_split(tensors, max_shard_size))
    files = [MODEL] if len(shards) == 1 else [_shard_name(index, len(shards)) for index in range(1, len(shards) + 1)]
    for file, names in zip(files, shards, strict=True):
        shard = _without_views({name: tensors[name] for name in names})
        save_file(shard, str(staging / file), metadata={"format": "pt"})
    if len(shards) > 1:
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {
            "metadata": {"total_size": sum(value.nbytes for value in tensors.values())},
            "weight_map": weight_map,
        }
        texts = {**texts, MODEL + INDEX: json.dumps(index, indent=1)}
    for name, text in texts.items():
        (staging / name).write_text(text, encoding="utf-8")
    (staging / FILE_LIST).write_text(json.dumps({"files": [*files, *texts]}))
    for path in staging.iterdir():
        _sync(path)


def finish_pending_save(folder: Path) -> None:
    """Move the files that a killed writer has committed to their places.

    Raises:
        ValueError: the list of those files is damaged, or `.saved` is a link.
    """
    committed = folder / COMMITTED
    if not _is_own_folder(committed):
        return
    if pending := pending_files(folder):
        for old in folder.glob("model*.safetensors*"):
            if old.name not in pending:
                old.unlink()
        for name, path in pending.items():
            if path.parent == committed:
                path.replace(folder / name)
        (committed / FILE_LIST).unlink()
    shutil.rmtree(committed)


def pending_files(folder: Path) -> dict[str, Path]:
    """Files of a commit that its writer did not live to move, by name: some may be in their places already.

    Raises:
        ValueError: the list of those files is damaged, or `.saved` is a link.
    """
    committed = folder / COMMITTED
    if not _is_own_folder(committed) or not (committed / FILE_LIST).is_file():
        return {}
    names = read_json(committed / FILE_LIST).get("files")
    if not isinstance(names, list) or not all(isinstance(name, str) and _is_file_name(name) for name in names):
        raise ValueError(f"{committed / FILE_LIST} names files outside of its folder; delete {committed}")
    return {name: committed / name if (committed / name).is_file() else folder / name for name in names}


def weight_source(folder: Path) -> Path | list[Path] | None:
    """File of tensors, index of shards or shards that `write` has left in a folder; None: there are none.

    Raises:
        ValueError: a killed writer has left a damaged list of files.
    """
    if pending := pending_files(folder):
        return [path for name, path in pending.items() if name.endswith(".safetensors")]
    return next((folder / name for name in (MODEL, MODEL + INDEX) if (folder / name).is_file()), None)


def text_file(folder: Path, name: str) -> Path:
    """Place of a text file that `write` has left in a folder; it need not exist.

    Raises:
        ValueError: a killed writer has left a damaged list of files.
    """
    return pending_files(folder).get(name, folder / name)


def _is_own_folder(path: Path) -> bool:
    """True for a folder, False for nothing; a link would lead out of the checkpoint."""
    if path.is_symlink():
        raise ValueError(f"{path} is a link, which no writer of mmrnn makes; delete it")
    return path.is_dir()


def _is_file_name(name: str) -> bool:
    return Path(name).name == name not in ("", "..", FILE_LIST) and "\0" not in name


def _split(tensors: Mapping[str, Tensor], max_shard_size: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, value in tensors.items():
        if names and size + value.nbytes > max_shard_size:
            yield names
            names, size = [], 0
        names.append(name)
        size += value.nbytes
    yield names


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05}-of-{count:05}.safetensors"


def _without_views(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as safetensors requires."""
    separate, storages = {}, set()
    for name, value in tensors.items():
        value = value.detach().contiguous()
        storage = value.untyped_storage()
        is_whole = value.nbytes == storage.nbytes()
        separate[name] = value if is_whole and storage.data_ptr() not in storages else value.clone()
        storages.add(storage.data_ptr())
    return separate


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
