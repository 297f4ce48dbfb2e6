"""Tokenizers that come as a file: Llama, Qwen and most others."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mmrnn.io.optional import require
from mmrnn.types import Tokenizer


class HFTokenizer(Tokenizer):
    """A `tokenizer.json` as `transformers` models ship it, or the tokenizer in the header of a GGUF file; read at first
    use by the package `tokenizers`.

    Special tokens are recognised where they stand in a text (`</s>`, `<|im_end|>`) and left out when ids are decoded.

    Args:
        added: words that get ids of their own behind those of the file (LLaVA's `<im_start>`). `vocab` counts them, and
            the language model has to have as many; what it loads is extended by the mean of its rows.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        vocab: int = 32000,
        bos: str | None = "<s>",
        eos: tuple[str, ...] = ("</s>",),
        pad: str | None = "<unk>",
        lead: bool = True,
        added: tuple[str, ...] = (),
    ) -> None:
        self.path, self.vocab, self.bos, self.eos, self._pad, self.lead = path, vocab, bos, tuple(eos), pad, lead
        self.added = tuple(added)

    def encode(self, text: str) -> list[int]:
        """Ids of a piece of text, without BOS.

        A SentencePiece file (`lead`) puts a blank of its own before every text. A piece that begins with a blank has
        it already: so ` Yes` after `ASSISTANT:` gets the ids that it has in the whole text.
        """
        if self.lead and text.startswith(" "):
            text = text[1:]
        return self._file.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._file.decode([id for id in ids if 0 <= id < self.vocab], skip_special_tokens=True)

    @property
    def starts(self) -> tuple[int, ...]:
        """What every text begins with."""
        return () if self.bos is None else (self._id("bos", self.bos),)

    @property
    def ends(self) -> tuple[int, ...]:
        return tuple(self._id("eos", name) for name in self.eos)

    @property
    def pad(self) -> int:
        return self._id("pad", self._pad) if self._pad is not None else self.ends[0]

    def _id(self, knob: str, name: str) -> int:
        id = self._file.token_to_id(name)
        if id is None:
            raise ValueError(f"tokenizer.{knob} ({name!r}) is no token of {self.path}; name one that is")
        return id

    @cached_property
    def _file(self) -> Any:
        if self.path is None:
            raise ValueError("tokenizer.path is not set: give the tokenizer.json that belongs to the language model")
        from mmrnn.io import packages
        from mmrnn.tokenizers.gguf import of_gguf

        package = require("tokenizers", "tokenizers", wanted_by="a tokenizer.json", extra="text")
        try:
            path = packages.locate(self.path) if packages.is_packaged(self.path) else self.path
            file = of_gguf(Path(path)) if str(path).endswith(".gguf") else package.Tokenizer.from_file(str(path))
        except ImportError:
            raise
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(f"tokenizer.path ({self.path}) cannot be read: {error}") from error
        # Files are often saved with the padding and truncation of their last use.
        file.no_padding()
        file.no_truncation()
        if self.added:
            file.add_special_tokens([package.AddedToken(word, normalized=False) for word in self.added])
        if (largest := max(file.get_vocab().values())) >= self.vocab:
            raise ValueError(f"{self.path} has ids up to {largest}, more than tokenizer.vocab ({self.vocab}) allows")
        return file
