"""GGUF files of llama.cpp: quantised language models whose header has the sizes and the tokenizer.

The header is parsed here, with every count checked against the size of the file; the package `gguf` dequantises.
"""

import struct
from dataclasses import dataclass
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mmrnn.io.optional import require

PERMUTED = {"llama": True, "qwen2": False, "qwen3": False}
"""Architecture -> True if llama.cpp has permuted the rows of queries and keys for interleaved rotary pairs."""

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a metadata value -> its `struct` format."""

STRING, ARRAY = 8, 9
DTYPES = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}
"""Type of an unquantised tensor -> dtype."""

DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class TensorInfo:
    """Entry of a tensor in the header.

    Attributes:
        shape: rows first.
        type_id: GGML type.
        start, stop: byte range in the file.
    """

    shape: tuple[int, ...]
    type_id: int
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """Metadata of a file and the entries of its tensors, by name."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> Header:
    """Parse the header of a file.

    Raises:
        ValueError: not a GGUF file, or its counts and sizes do not agree with its length.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path.name} is not a GGUF file; name one, or give it the suffix of its kind")
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            try:
                return _Parser(content).header()
            except (IndexError, struct.error, UnicodeDecodeError, OverflowError) as error:
                raise ValueError(f"{path.name} is damaged: {error}; fetch it again") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Dequantised tensors, with rows in the order of Hugging Face.

    Raises:
        ValueError: the file is damaged, or its architecture is unknown.
        ImportError: it is quantised, and the package `gguf` is not installed.
    """
    header = read_header(path)
    architecture = header.metadata.get("general.architecture")
    if architecture not in PERMUTED:
        raise ValueError(f"{path.name} holds a {architecture!r}; known architectures: {', '.join(PERMUTED)}")
    heads = header.metadata.get(f"{architecture}.attention.head_count")
    kv_heads = header.metadata.get(f"{architecture}.attention.head_count_kv", heads)
    data = torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8)
    tensors = {}
    for name, info in header.tensors.items():
        value = _dequantise(data[info.start : info.stop], info)
        if PERMUTED[architecture] and ".attn_q." in name:
            value = _unpermute(path, name, value, heads)
        elif PERMUTED[architecture] and ".attn_k." in name:
            value = _unpermute(path, name, value, kv_heads)
        tensors[name] = value
    return tensors


def _dequantise(raw: Tensor, info: TensorInfo) -> Tensor:
    if info.type_id in DTYPES:
        # A copy: the data need not be aligned to the size of its dtype.
        return raw.clone().view(DTYPES[info.type_id]).view(info.shape)
    gguf = _gguf()
    values = gguf.quants.dequantize(raw.numpy(), gguf.GGMLQuantizationType(info.type_id))
    return torch.from_numpy(values).view(info.shape)


def _unpermute(path: Path, name: str, value: Tensor, heads: Any) -> Tensor:
    """Turn interleaved rotary pairs (llama.cpp) into pairs half a head apart (Hugging Face, mmrnn)."""
    if not isinstance(heads, int) or heads < 1 or len(value) % (2 * heads):
        raise ValueError(f"{path.name} is damaged: {name} has {len(value)} rows for {heads} heads; fetch it again")
    return value.view(heads, -1, 2, *value.shape[1:]).transpose(1, 2).reshape(value.shape)


class _Parser:
    """Sequential reader of a header that never reads beyond the end of the file and believes no count."""

    def __init__(self, content: mmap) -> None:
        self.content, self.offset = content, 4

    def header(self) -> Header:
        version = self.scalar("I")
        if version not in (2, 3):
            raise IndexError(f"version {version} of GGUF; 2 and 3 are known")
        num_tensors, num_entries = self.count("Q", 24), self.count("Q", 12)
        metadata = {}
        for _ in range(num_entries):
            name = self.string()
            metadata[name] = self.value(self.scalar("I"))
        entries = [self.tensor() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment < 2**16:
            raise IndexError(f"an alignment of {alignment!r}")
        data_start = -(-self.offset // alignment) * alignment
        tensors = {}
        for name, shape, type_id, offset in entries:
            start = data_start + offset
            tensors[name] = TensorInfo(shape, type_id, start, start + _num_bytes(name, shape, type_id))
            if tensors[name].stop > len(self.content):
                raise IndexError(f"{name} lies beyond the end of the file")
        return Header(metadata, tensors)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset of a tensor."""
        name, num_axes = self.string(), self.scalar("I")
        if not 0 < num_axes <= 4:
            raise IndexError(f"{name} has {num_axes} axes")
        sizes = [self.scalar("Q") for _ in range(num_axes)]
        return name, tuple(reversed(sizes)), self.scalar("I"), self.scalar("Q")

    def take(self, size: int) -> bytes:
        if size > len(self.content) - self.offset:
            raise IndexError(f"{size} bytes are announced at byte {self.offset}, and the file has {len(self.content)}")
        self.offset += size
        return self.content[self.offset - size : self.offset]

    def scalar(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def count(self, kind: str, min_size: int) -> int:
        """Number of entries of at least `min_size` bytes each."""
        number = self.scalar(kind)
        if number * min_size > len(self.content) - self.offset:
            raise IndexError(f"{number} entries are announced at byte {self.offset}: the file is too short for them")
        return number

    def string(self) -> str:
        return self.take(self.scalar("Q")).decode()

    def strings(self, count: int) -> list[str]:
        """A vocabulary of 100,000 strings: `string` without its calls."""
        content, at, strings = self.content, self.offset, []
        for _ in range(count):
            (size,) = struct.unpack_from("<Q", content, at)
            if size > len(content) - at - 8:
                raise IndexError(f"{size} bytes are announced at byte {at}, and the file has {len(content)}")
            strings.append(content[at + 8 : at + 8 + size].decode())
            at += 8 + size
        self.offset = at
        return strings

    def value(self, kind: int) -> Any:
        """Metadata value of a type."""
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise IndexError(f"a value of the unknown type {kind} at byte {self.offset}")
        item = self.scalar("I")
        if item in SCALARS:
            size = struct.calcsize(SCALARS[item])
            count = self.count("Q", size)
            return list(struct.unpack(f"<{count}{SCALARS[item]}", self.take(count * size)))
        if item != STRING:
            raise IndexError(f"a list of values of the unknown type {item} at byte {self.offset}")
        return self.strings(self.count("Q", 8))


def _num_bytes(name: str, shape: tuple[int, ...], type_id: int) -> int:
    if type_id in DTYPES:
        return prod(shape) * DTYPES[type_id].itemsize
    gguf = _gguf()
    try:
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(type_id)]
    except (ValueError, KeyError) as error:
        raise IndexError(f"{name} is of the unknown type {type_id}") from error
    if shape[-1] % block:
        raise IndexError(f"a row of {name} has {shape[-1]} values, which is not a multiple of {block}")
    return prod(shape) // block * size


def _gguf() -> ModuleType:
    return require("gguf", "the package gguf", wanted_by="a quantised GGUF file", extra="gguf")
