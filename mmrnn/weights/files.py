"""Files of tensors, opened without running anything that they contain."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from zipfile import is_zipfile

from torch import Tensor

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, or of the one file of tensors in a folder.

    Raises:
        FileNotFoundError: there is no such file, or no file of tensors in the folder.
        ValueError: the file is damaged, holds something other than tensors, or needs code to be run.
    """
    path = Path(path)
    if path.is_dir():
        path = _only(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path.name} is no weight file that can be read here; known endings: {', '.join(SUFFIXES)}")
    return _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)


def _only(folder: Path) -> Path:
    for suffix in SUFFIXES:
        files = sorted(folder.glob(f"*{suffix}"))
        if len(files) == 1:
            return files[0]
        if files:
            raise ValueError(f"{folder} holds {len(files)} {suffix} files; name the one to load")
    raise FileNotFoundError(f"there is no weight file in {folder}; known endings: {', '.join(SUFFIXES)}")


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except SafetensorError as fault:
        raise ValueError(f"{path.name} is damaged or no safetensors file: {fault}") from fault


def _pickle(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        # Files from before torch 1.6 are no zip archives and cannot be mapped.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except pickle.UnpicklingError as fault:
        raise ValueError(
            f"{path.name} holds more than tensors and was not opened, because opening it could run its code; "
            "ask its author for safetensors"
        ) from fault
    except (RuntimeError, EOFError, OSError) as fault:
        raise ValueError(f"{path.name} is damaged or no weight file: {fault}") from fault
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path.name} is no dictionary of tensors")
    return content


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a new file at another name and put it at `path` at once: a killed writer leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(new)
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
