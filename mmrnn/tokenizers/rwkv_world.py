"""The tokenizer of RWKV's World models."""

from ast import literal_eval
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mmrnn.io.optional import require
from mmrnn.types import Tokenizer


class RWKVWorldTokenizer(Tokenizer):
    """The longest match in 65529 byte strings, ids 1 to 65529; the rest of the 65536 is unused. An empty line is 261,
    and the models end a text with 0, which stands in no vocabulary.
    """

    vocab = 65536
    pad = 0
    ends = (0, 261)

    def encode(self, text: str) -> list[int]:
        return _core().encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; an id that is no byte string says nothing, a broken character shows as `\\ufffd`."""
        # The package's own decoder dies of such ids.
        table = _table()
        return b"".join(table.get(int(id), b"") for id in ids).decode("utf-8", "replace")


@cache
def _core() -> Any:
    """The package's tokenizer. It takes half a second to build, and does not change."""
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
