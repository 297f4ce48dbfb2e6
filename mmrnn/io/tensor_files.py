"""Files of tensors, opened without running anything that they contain and without believing what they say of
themselves. Tensors are mapped, not read: their bytes come into memory where they are used.
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from torch import Tensor

from mmrnn.io.hub import SUFFIXES

INDEX = ".index.json"
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
BESIDE_ADAPTER = "non_lora_trainables.bin"
"""What LLaVA keeps beside a LoRA: the tensors that were trained as they are."""

LARGEST_TEXT = 64 * 2**20
"""More bytes than any index or configuration has."""

WRAPPED = ("state_dict", "model", "module")
"""Where training programs keep the tensors inside of what they save."""

FOLDERS = ("llm", "mm_projector", "vision_tower")
"""VILA-1.5 keeps its parts in folders of their own; their names come before those of the tensors."""

Source = str | Path | Sequence[str | Path]


def read(source: Source) -> dict[str, Tensor]:
    """The tensors of a file, of a sharded index, of a folder, of a repository on the Hugging Face hub, or of several.

    Args:
        source: `.safetensors`, `.pth`/`.pt`/`.bin`, `.gguf`, `....index.json`, a folder that holds one of these,
            `owner/name` or `hf://owner/name@revision/file`, `package:name/file` of an installed package; or a list of
            them that complete each other.

    Raises:
        FileNotFoundError: there is no such file, or no file of tensors in the folder.
        ConnectionError: the hub cannot be reached.
        ValueError: the file is damaged, holds something other than tensors, or needs code to be run.
    """
    if isinstance(source, str | Path):
        if all((Path(source) / name).is_dir() for name in FOLDERS):
            inner = {name: read(Path(source) / name) for name in FOLDERS}
            return {f"{name}.{key}": value for name, group in inner.items() for key, value in group.items()}
        return read_files(locate(source))
    return _join({str(one): read(one) for one in source})


def locate(source: str | Path) -> list[Path]:
    """The files that a source stands for, fetched from the hub where it names a repository.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as `read`.
    """
    from mmrnn.io import hub, packages

    if packages.is_packaged(source):
        return [packages.locate(str(source))]
    path = Path(source)
    if not path.exists() and hub.is_id(source):
        path = hub.fetch(str(source))
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    return [path]


def facts(source: Source) -> dict[str, Any]:
    """What stands beside the tensors: the metadata of a GGUF file, or the `config.json` of a folder."""
    if not isinstance(source, str | Path):
        return {name: value for one in reversed(source) for name, value in facts(one).items()}
    if all((Path(source) / name).is_dir() for name in FOLDERS):
        return facts(Path(source) / FOLDERS[0])
    files = locate(source)
    if files[0].suffix == ".gguf":
        from mmrnn.io.gguf import header

        return header(files[0]).facts
    names = ("adapter_config.json",) if files[0].name in ADAPTERS else ("config.json",)
    found = [files[0].parent / name for name in names if (files[0].parent / name).is_file()]
    return read_json(found[0]) if found else {}


def read_files(files: Sequence[Path]) -> dict[str, Tensor]:
    return _join({path.name: _read_file(path) for path in files})


def read_json(path: Path) -> dict[str, Any]:
    """
    Raises:
        ValueError: no JSON object, or one that is too large to be what it claims.
    """
    if path.stat().st_size > LARGEST_TEXT:
        raise ValueError(f"{path.name} is too large to be a description of tensors ({path.stat().st_size} bytes)")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"{path.name} is no JSON: {fault}") from fault
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return content


def _join(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    for origin, tensors in parts.items():
        if twice := joined.keys() & tensors.keys():
            raise ValueError(f"{origin} holds {sorted(twice)[0]!r}, which another of these files holds, too")
        joined |= tensors
    return joined


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.name.endswith(INDEX):
        return _index(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path.name} is no weight file that can be read here; known endings: {', '.join(SUFFIXES)}")
    if path.suffix == ".gguf":
        from mmrnn.io.gguf import tensors

        return tensors(path)
    return _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)


def _of_folder(folder: Path) -> list[Path]:
    for name in ADAPTERS:
        if (folder / name).is_file():
            return [folder / name, *filter(Path.is_file, [folder / BESIDE_ADAPTER])]
    for suffix in (f".safetensors{INDEX}", ".safetensors", f".bin{INDEX}", *SUFFIXES[1:]):
        files = sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))
        if len(files) == 1:
            return files
        if files:
            raise ValueError(f"{folder} holds {len(files)} {suffix} files; name the one to load")
    raise FileNotFoundError(f"there is no weight file in {folder}; known endings: {', '.join(SUFFIXES)}")


def _index(path: Path) -> dict[str, Tensor]:
    """The tensors of all shards, shard by shard. A shard is a plain name: an index cannot point out of its folder."""
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{path.name} has no weight_map from the names of tensors to those of files")
    tensors: dict[str, Tensor] = {}
    for shard in dict.fromkeys(places.values()):
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(SUFFIXES[:-1]):
            raise ValueError(f"{path.name} names the file {shard!r}, which is no weight file of its own folder")
        if not (path.parent / shard).is_file():
            raise FileNotFoundError(f"{path.name} names {shard}, which is not in {path.parent}")
        found = _read_file(path.parent / shard)
        if lost := sorted(name for name, place in places.items() if place == shard and name not in found):
            raise ValueError(f"{path.name} promises {lost[0]!r} in {shard}, which does not hold it")
        tensors |= found
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as fault:
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
    except Exception as fault:  # a damaged file can break its reader in any place
        reason = str(fault).strip().split("\n")[0]
        raise ValueError(f"{path.name} is damaged or no weight file: {reason or type(fault).__name__}") from fault
    for key in WRAPPED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = _flatten(content) if isinstance(content, dict) else {"": content}
    if not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{path.name} is no dictionary of tensors")
    for name, value in tensors.items():
        _honest(path, name, value)
    return tensors


def _flatten(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Prismatic keeps a dictionary for each part."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        nested = isinstance(value, dict) and prefix.count(".") < 4
        flat |= _flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _honest(path: Path, name: str, value: Tensor) -> None:
    """A tensor of a file has its elements in the file: a shape can claim any number of them."""
    if value.device.type != "cpu" or value.is_sparse or value.is_quantized or value.is_nested:
        raise ValueError(f"{path.name}: {name} is no plain tensor with its elements in the file")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(f"{path.name} is damaged: {name} claims {value.numel()} elements and does not have them")
