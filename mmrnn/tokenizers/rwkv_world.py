"""Tokenizer of the RWKV World models."""

from ast import literal_eval
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mmrnn.io.optional import require
from mmrnn.types import NonNegativeInt, Tokenizer


class RWKVWorldTokenizer(Tokenizer):
    """Greedy longest match over 65529 byte strings with the ids 1 to 65529; the ids up to 65535 are unused.

    An empty line is id 261. The models end a text with 0, which is not in the vocabulary.

    Args:
        ends: ids that end a reply.
    """

    vocab = 65536
    pad = 0

    def __init__(self, *, ends: tuple[NonNegativeInt, ...] = (0, 261)):
        self.ends = tuple(ends)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return _core().encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        r"""Text of ids; unknown ids are skipped, and an incomplete character becomes `\ufffd`."""
        # The package's own decoder crashes on unknown ids.
        table = _table()
        return b"".join(table.get(int(id), b"") for id in ids).decode("utf-8", "replace")


@cache
def _core() -> Any:
    """The package's tokenizer; building it takes half a second."""
    package = require("pyrwkv_tokenizer", "pyrwkv_tokenizer", wanted_by="tokenizer=world", extra="text")
    return package.RWKVTokenizer()


@cache
def _table() -> dict[int, bytes]:
    """Id to bytes, from the package's vocabulary: lines `id literal length`."""
    table = {}
    for line in Path(_core().vocab_filepath).read_text(encoding="utf-8").splitlines():
        id, _, rest = line.partition(" ")
        value = literal_eval(rest.rpartition(" ")[0])
        table[int(id)] = value.encode() if isinstance(value, str) else value
    return table
