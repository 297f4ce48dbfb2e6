"""Tokenizer of the default model: 1024 ids, no extra package."""

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from mmrnn.types import Tokenizer


class DemoTokenizer(Tokenizer):
    """Greedy longest match over byte strings, the algorithm of RWKV World, with 1024 ids.

    Id 0 ends and pads a text. Ids 1 to 256 are the bytes, so that any text can be encoded. From 257 on follow the
    pieces of `demo.json`, which `demo_vocab.py` derives from the questions and answers about the default images.
    """

    vocab = 1024
    pad = 0
    ends = (0, 257)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return list(_encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        r"""Text of ids; 0 and unknown ids are skipped, and an incomplete character becomes `\ufffd`."""
        pieces, _, _ = _tables()
        text = "".join(pieces[id] for id in ids if 0 <= id < len(pieces))
        return text.encode("latin-1").decode("utf-8", "replace")


@lru_cache(maxsize=8192)  # training repeats the same few questions
def _encode(text: str) -> tuple[int, ...]:
    _, ids, sizes = _tables()
    text = text.encode().decode("latin-1")
    found, start = [], 0
    while start < len(text):
        size = next(size for size in sizes[text[start]] if text[start : start + size] in ids)
        found.append(ids[text[start : start + size]])
        start += size
    return tuple(found)


@cache
def _tables() -> tuple[list[str], dict[str, int], dict[str, list[int]]]:
    """Pieces by id, ids by piece, and lengths of pieces by first character, the longest first.

    A byte is a Latin-1 character.
    """
    listed = json.loads((Path(__file__).parent / "demo.json").read_text(encoding="utf-8"))
    listed = [piece.encode().decode("latin-1") for piece in listed]
    pieces = ["", *(chr(byte) for byte in range(256)), *listed]
    sizes: dict[str, set[int]] = defaultdict(set)
    for piece in pieces[1:]:
        sizes[piece[0]].add(len(piece))
    ids = {piece: id for id, piece in enumerate(pieces) if piece}
    return pieces, ids, {first: sorted(long, reverse=True) for first, long in sizes.items()}
