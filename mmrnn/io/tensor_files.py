"""Files of tensors, read without executing or trusting their content.

Tensors are memory-mapped: their bytes are read where they are used.
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmrnn.io import gguf, hub, packages
from mmrnn.io.errors import first_line
from mmrnn.io.hub import SUFFIXES

INDEX = ".index.json"
CONFIG = "config.json"
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTER_CONFIG = "adapter_config.json"
NON_LORA = "non_lora_trainables.bin"
"""File in LLaVA's adapter folders: tensors that were trained without LoRA."""

MAX_TEXT_SIZE = 64 * 2**20
"""Bytes; no index or configuration is larger."""

NESTED_KEYS = ("state_dict", "model", "module")
"""Keys under which training programs store the tensors of a checkpoint."""

MAX_NESTING = 4

VILA_FOLDERS = ("llm", "mm_projector", "vision_tower")
"""Folders of a VILA-1.5 checkpoint; the name of its folder becomes the prefix of a tensor."""

Source = str | Path | Sequence[str | Path]
"""Source of tensors; see `read`."""


def read(source: Source) -> dict[str, Tensor]:
    """Tensors of a file, a sharded index, a folder, a repository on the Hugging Face hub, or several of these.

    Args:
        source: `.safetensors`, `.pth`/`.pt`/`.bin`, `.gguf`, `....index.json`, a folder that holds one of these,
            `owner/name` or `hf://owner/name@revision/file`, `package:name/file` of an installed package; or a list of
            them whose tensors complete each other.

    Raises:
        FileNotFoundError: there is no such file, or no file of tensors in the folder.
        ConnectionError: the hub cannot be reached.
        ImportError: the source needs an optional package.
        ValueError: the file is damaged, holds something other than tensors, or would have to execute code.
    """
    if not isinstance(source, str | Path):
        return _merge({str(one): read(one) for one in source})
    if _is_vila(source):
        folders = {name: read(Path(source) / name) for name in VILA_FOLDERS}
        return {f"{name}.{key}": value for name, tensors in folders.items() for key, value in tensors.items()}
    return _merge({path.name: _read_file(path) for path in locate(source)})


def locate(source: str | Path) -> list[Path]:
    """Files of a source, downloaded if it names a repository of the hub.

    Raises:
        FileNotFoundError: there is no such file, or no file of tensors in the folder.
        ConnectionError: the hub cannot be reached.
        ImportError: the source needs an optional package.
        ValueError: a folder has several files of tensors.
    """
    if packages.is_packaged(source):
        return [packages.locate(str(source))]
    path = Path(source)
    if not path.exists() and hub.is_repo_id(source):
        path = hub.fetch(str(source))
    if path.is_dir():
        return _files_of_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    return [path]


def read_metadata(source: Source) -> dict[str, Any]:
    """Metadata of a source: the header of a GGUF file, or the `config.json` of a folder.

    Raises:
        FileNotFoundError: there is no such file, or no file of tensors in the folder.
        ConnectionError: the hub cannot be reached.
        ValueError: the metadata is damaged.
    """
    if not isinstance(source, str | Path):
        return {name: value for one in reversed(source) for name, value in read_metadata(one).items()}
    if _is_vila(source):
        return read_metadata(Path(source) / VILA_FOLDERS[0])
    file = locate(source)[0]
    if file.suffix == ".gguf":
        return gguf.read_header(file).metadata
    path = file.parent / CONFIG
    return read_json(path) if path.is_file() else {}


def read_adapter_config(source: Source) -> dict[str, Any]:
    """Content of the `adapter_config.json` beside the files of a source; empty: there is none.

    Raises:
        FileNotFoundError: there is no such file, or no file of tensors in the folder.
        ConnectionError: the hub cannot be reached.
        ValueError: it is damaged, or there are several that differ.
    """
    sources = [source] if isinstance(source, str | Path) else source
    found = {path.parent / ADAPTER_CONFIG for one in sources if not _is_vila(one) for path in locate(one)}
    configs = [read_json(path) for path in sorted(found) if path.is_file()]
    if any(config != configs[0] for config in configs):
        raise ValueError(f"the folders of these files have {ADAPTER_CONFIG} that differ; merge one adapter at a time")
    return configs[0] if configs else {}


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: not a JSON object, or too large for an index or a configuration.
    """
    if path.stat().st_size > MAX_TEXT_SIZE:
        raise ValueError(f"{path.name} is too large for an index or a configuration ({path.stat().st_size} bytes)")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not a JSON object; fetch it again")
    return content


def _is_vila(source: str | Path) -> bool:
    return all((Path(source) / name).is_dir() for name in VILA_FOLDERS)


def _merge(files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    merged: dict[str, Tensor] = {}
    for file, tensors in files.items():
        if duplicates := merged.keys() & tensors.keys():
            raise ValueError(
                f"{file} holds {sorted(duplicates)[0]!r}, which another of these files holds, too; name one of them"
            )
        merged |= tensors
    return merged


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.name.endswith(INDEX):
        return _read_index(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path.name} is not a weight file; known suffixes: {', '.join(SUFFIXES)}")
    if path.suffix == ".gguf":
        return gguf.read_tensors(path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _files_of_folder(folder: Path) -> list[Path]:
    for name in ADAPTERS:
        if (folder / name).is_file():
            return [folder / name, *filter(Path.is_file, [folder / NON_LORA])]
    for suffix in (f".safetensors{INDEX}", ".safetensors", f".bin{INDEX}", *SUFFIXES[1:]):
        files = sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))
        if len(files) == 1:
            return files
        if files:
            raise ValueError(f"{folder} holds {len(files)} {suffix} files; name the one to load")
    raise FileNotFoundError(f"there is no weight file in {folder}; known suffixes: {', '.join(SUFFIXES)}")


def _read_index(path: Path) -> dict[str, Tensor]:
    """Tensors of all shards. Shards are plain file names, so that an index cannot point outside of its folder."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ValueError(f"{path.name} has no weight_map from names of tensors to names of files; fetch it again")
    tensors: dict[str, Tensor] = {}
    for shard in dict.fromkeys(weight_map.values()):
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(SUFFIXES[:-1]):
            raise ValueError(f"{path.name} names the file {shard!r}, which is not a weight file of its own folder")
        if not (path.parent / shard).is_file():
            raise FileNotFoundError(f"{path.name} names {shard}, which is not in {path.parent}; fetch it, too")
        content = _read_file(path.parent / shard)
        if missing := sorted(name for name, file in weight_map.items() if file == shard and name not in content):
            raise ValueError(f"{path.name} lists {missing[0]!r} in {shard}, which does not hold it; fetch both again")
        tensors |= content
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path.name} is damaged or not a safetensors file: {error}; fetch it again") from error
    for name, value in tensors.items():
        require_dense(path.name, name, value)
    return tensors


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # Files from before torch 1.6 are not zip archives and cannot be mapped.
        is_zip = is_zipfile(path)
        if is_zip:
            _require_stored(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} holds more than tensors and was not opened, because opening it could run its code; "
            "ask its author for safetensors"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere in the reader
        raise ValueError(f"{path.name} is damaged or not a weight file: {first_line(error)}; fetch it again") from error
    for key in NESTED_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = _flatten(path, content, set()) if isinstance(content, dict) else {"": content}
    if not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{path.name} is not a dictionary of tensors; name the file that holds the weights")
    for name, value in tensors.items():
        _check_tensor(path, name, value)
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors.values()}
    if (total := sum(storages.values())) > (size := path.stat().st_size):
        raise ValueError(
            f"{path.name} is damaged: its tensors claim {total} bytes, and the file has {size}; fetch it again"
        )
    return tensors


def _require_stored(path: Path) -> None:
    """Refuse an archive with compressed entries: a small one can expand to more than any memory holds."""
    with ZipFile(path) as archive:
        compressed = [entry.filename for entry in archive.infolist() if entry.compress_type != ZIP_STORED]
    if compressed:
        raise BadZipFile(f"{compressed[0]} is compressed, which torch.save never does")


def _flatten(
    path: Path, content: Mapping[Any, Any], seen: set[int], prefix: str = "", depth: int = 0
) -> dict[str, Any]:
    """Flatten nested dictionaries: Prismatic stores one for each part.

    A dictionary in several places, or in itself, would make far more names than the file has.
    """
    if id(content) in seen:
        twice = f"{prefix[:-1]!r} is in it more than once"
        raise ValueError(f"{path.name} is not a dictionary of tensors: {twice}; save the tensors alone")
    seen.add(id(content))
    flat: dict[str, Any] = {}
    for name, value in content.items():
        nested = isinstance(value, dict) and depth < MAX_NESTING
        flat |= _flatten(path, value, seen, f"{prefix}{name}.", depth + 1) if nested else {f"{prefix}{name}": value}
    return flat


def _check_tensor(path: Path, name: str, value: Tensor) -> None:
    """Refuse a tensor whose elements are not all in the file: its shape can claim any number of them."""
    require_dense(path.name, name, value)
    if value.device.type != "cpu":
        raise ValueError(f"{path.name}: {name} is not a plain tensor with its elements in the file; save it as one")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(
            f"{path.name} is damaged: {name} claims {value.numel()} elements and does not have them; fetch it again"
        )


def require_dense(source: str, name: str, value: Tensor) -> None:
    """Check that a tensor is dense and of real numbers, as weights are.

    Raises:
        ValueError: it is not.
    """
    if value.layout != torch.strided or value.is_quantized or value.is_nested:
        kind = "nested" if value.is_nested else "quantized" if value.is_quantized else str(value.layout)
        raise ValueError(f"{source}: {name} is not a plain tensor ({kind}); write it as a dense one")
    if value.is_complex():
        raise ValueError(f"{source}: {name} is complex ({value.dtype}); save real numbers")
