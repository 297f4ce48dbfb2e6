"""GGUF, the files of llama.cpp: quantised language models with their sizes and their tokenizer in one header.

The header is read here, every count held against the size of the file; the package `gguf` knows how the quantised
blocks are packed.
"""

import struct
from dataclasses import dataclass
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ORDERS = {"llama": True, "qwen2": False, "qwen3": False}
"""Architecture -> whether llama.cpp has reordered the rows of queries and keys for its way of rotating pairs."""

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
PLAIN = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: its shape (rows first), the number of its type, its bytes from `start` to `stop`."""

    shape: tuple[int, ...]
    kind: int
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    facts: dict[str, Any]
    places: dict[str, Place]


def header(path: Path) -> Header:
    """What the file says of itself.

    Raises:
        ValueError: it is no GGUF file, or its counts and sizes do not agree with its length.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path.name} is no GGUF file")
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            try:
                return _Reader(content).header()
            except (IndexError, struct.error, UnicodeDecodeError, OverflowError) as fault:
                raise ValueError(f"{path.name} is damaged: {fault}") from fault


def tensors(path: Path) -> dict[str, Tensor]:
    """The tensors, dequantised, in the order of rows that Hugging Face has.

    Raises:
        ValueError: the file is damaged, or of an architecture that is not known here.
        ImportError: it is quantised, and the package `gguf` is not installed.
    """
    head = header(path)
    kind = head.facts.get("general.architecture")
    if kind not in ORDERS:
        raise ValueError(f"{path.name} holds a {kind!r}; known architectures: {', '.join(ORDERS)}")
    heads = head.facts.get(f"{kind}.attention.head_count")
    groups = head.facts.get(f"{kind}.attention.head_count_kv", heads)
    data = torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8)
    named = {}
    for name, place in head.places.items():
        value = _values(data[place.start : place.stop], place)
        if ORDERS[kind] and ".attn_q." in name:
            value = _halves(path, name, value, heads)
        elif ORDERS[kind] and ".attn_k." in name:
            value = _halves(path, name, value, groups)
        named[name] = value
    return named


def _values(raw: Tensor, place: Place) -> Tensor:
    if place.kind in PLAIN:
        # A copy: the data of a tensor need not begin where its type asks for.
        return raw.clone().view(PLAIN[place.kind]).view(place.shape)
    gguf = _package()
    kind = gguf.GGMLQuantizationType(place.kind)
    return torch.from_numpy(gguf.quants.dequantize(raw.numpy(), kind)).view(place.shape)


def _halves(path: Path, name: str, value: Tensor, heads: Any) -> Tensor:
    """Rows whose pairs stand side by side (llama.cpp) to pairs half a head apart (Hugging Face, and here)."""
    if not isinstance(heads, int) or heads < 1 or len(value) % (2 * heads):
        raise ValueError(f"{path.name} is damaged: {name} has {len(value)} rows for {heads} heads")
    return value.view(heads, -1, 2, *value.shape[1:]).transpose(1, 2).reshape(value.shape)


class _Reader:
    """A place in a file, and the values that follow; nothing is read beyond the end or believed to lie there."""

    def __init__(self, content: mmap) -> None:
        self.content, self.at = content, 4

    def header(self) -> Header:
        version = self.number("I")
        if version not in (2, 3):
            raise IndexError(f"version {version} of GGUF; 2 and 3 are known")
        count, many = self.count("Q", 24), self.count("Q", 12)
        facts = {}
        for _ in range(many):
            name = self.text()
            facts[name] = self.value(self.number("I"))
        found = [self.tensor() for _ in range(count)]
        step = facts.get("general.alignment", 32)
        if not isinstance(step, int) or not 0 < step < 2**16:
            raise IndexError(f"an alignment of {step!r}")
        begin = -(-self.at // step) * step
        places = {}
        for name, shape, kind, offset in found:
            start = begin + offset
            places[name] = Place(shape, kind, start, start + _size(name, shape, kind))
            if places[name].stop > len(self.content):
                raise IndexError(f"{name} lies beyond the end of the file")
        return Header(facts, places)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, axes = self.text(), self.number("I")
        if not 0 < axes <= 4:
            raise IndexError(f"{name} has {axes} axes")
        sizes = [self.number("Q") for _ in range(axes)]
        return name, tuple(reversed(sizes)), self.number("I"), self.number("Q")

    def take(self, size: int) -> bytes:
        if size > len(self.content) - self.at:
            raise IndexError(f"{size} bytes are announced at byte {self.at}, and the file has {len(self.content)}")
        self.at += size
        return self.content[self.at - size : self.at]

    def number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def count(self, kind: str, least: int) -> int:
        """A number of things of which each takes at least so many bytes."""
        number = self.number(kind)
        if number * least > len(self.content) - self.at:
            raise IndexError(f"{number} entries are announced at byte {self.at}: the file is too short for them")
        return number

    def text(self) -> str:
        return self.take(self.number("Q")).decode()

    def texts(self, count: int) -> list[str]:
        """A vocabulary has a hundred thousand of them: this is `text` without its calls."""
        content, at, found = self.content, self.at, []
        for _ in range(count):
            (size,) = struct.unpack_from("<Q", content, at)
            if size > len(content) - at - 8:
                raise IndexError(f"{size} bytes are announced at byte {at}, and the file has {len(content)}")
            found.append(content[at + 8 : at + 8 + size].decode())
            at += 8 + size
        self.at = at
        return found

    def value(self, kind: int) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise IndexError(f"a value of the unknown type {kind} at byte {self.at}")
        inner = self.number("I")
        if inner in NUMBERS:
            count = self.count("Q", struct.calcsize(NUMBERS[inner]))
            return list(struct.unpack(f"<{count}{NUMBERS[inner]}", self.take(count * struct.calcsize(NUMBERS[inner]))))
        if inner != STRING:
            raise IndexError(f"a list of values of the unknown type {inner} at byte {self.at}")
        return self.texts(self.count("Q", 8))


def _size(name: str, shape: tuple[int, ...], kind: int) -> int:
    if kind in PLAIN:
        return prod(shape) * PLAIN[kind].itemsize
    gguf = _package()
    try:
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as fault:
        raise IndexError(f"{name} is of the unknown type {kind}") from fault
    if shape[-1] % block:
        raise IndexError(f"a row of {name} has {shape[-1]} values, no multiple of {block}")
    return prod(shape) // block * size


def _package() -> Any:
    try:
        import gguf
    except ImportError as fault:
        raise ImportError("a quantised GGUF file needs the package gguf: pip install 'mmrnn[gguf]'") from fault
    return gguf
