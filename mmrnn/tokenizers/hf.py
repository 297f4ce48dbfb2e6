"""Tokenizers in a file: Llama, Qwen and most others."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mmrnn.io import packages
from mmrnn.io.optional import require
from mmrnn.tokenizers.gguf import from_gguf
from mmrnn.types import PositiveInt, Tokenizer


class HFTokenizer(Tokenizer):
    """Tokenizer of a `tokenizer.json` (the format of `transformers`), or of the header of a GGUF file.

    The file is read at first use, by the package `tokenizers`. Special tokens in a text (`</s>`, `<|im_end|>`) are
    recognised when it is encoded and skipped when ids are decoded.

    Args:
        path: file, or `package:NAME/FILE` for one inside an installed package.
        vocab: number of ids, those of `added_tokens` included; the language model must have as many.
        bos: token that every text begins with; None: none.
        eos: tokens that end a reply.
        pad: token that fills rows up; None: the first of `eos`.
        prefix_space: the file puts a space in front of every text, as SentencePiece does.
        added_tokens: tokens with ids behind those of the file (LLaVA's `<im_start>`). White space beside them in a text
            is dropped, as by the Llama tokenizer that LLaVA added them to. The embeddings that a language model loads
            for them are the mean of the others.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        vocab: PositiveInt = 32000,
        bos: str | None = "<s>",
        eos: tuple[str, ...] = ("</s>",),
        pad: str | None = "<unk>",
        prefix_space: bool = True,
        added_tokens: tuple[str, ...] = (),
    ) -> None:
        self.path, self.vocab, self.bos, self.eos, self._pad = path, vocab, bos, tuple(eos), pad
        self.prefix_space, self.added_tokens = prefix_space, tuple(added_tokens)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without BOS.

        Raises:
            ImportError: the package `tokenizers` is missing.
            ValueError: the file cannot be read, or does not have the tokens of this configuration.
        """
        return self._file.encode(text, add_special_tokens=False).ids

    def encode_after(self, before: str, text: str) -> list[int]:
        """Ids of a text that directly follows another.

        With `prefix_space` the file prepends a space to whatever it is given, so the text is read together with the
        one before it: ` Yes` after `ASSISTANT:` and `Human:` after `###` get the ids that they have in the whole. Where
        one token lies in both texts, the second is encoded by itself.
        """
        if not self.prefix_space:
            return self.encode(text)
        whole = self._file.encode(before + text, add_special_tokens=False)
        cut = len(before)
        if any(start < cut < stop for start, stop in whole.offsets):
            return self.encode(text)
        return [id for id, (start, _) in zip(whole.ids, whole.offsets, strict=True) if start >= cut]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens; unknown ids are skipped."""
        return self._file.decode([id for id in ids if 0 <= id < self.vocab], skip_special_tokens=True)

    @property
    def starts(self) -> tuple[int, ...]:
        """Id of BOS, if any."""
        return () if self.bos is None else (self._id("bos", self.bos),)

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids of the tokens that end a reply."""
        return tuple(self._id("eos", name) for name in self.eos)

    @property
    def pad(self) -> int:
        """Id of the padding token."""
        return self._id("pad", self._pad) if self._pad is not None else self.ends[0]

    def _id(self, knob: str, name: str) -> int:
        id = self._file.token_to_id(name)
        if id is None:
            raise ValueError(f"tokenizer.{knob} ({name!r}) is no token of {self.path}; name one that it has")
        return id

    @cached_property
    def _file(self) -> Any:
        if self.path is None:
            raise ValueError("tokenizer.path is not set: give the path of the language model's tokenizer.json")
        package = require("tokenizers", "tokenizers", wanted_by="a tokenizer.json", extra="text")
        try:
            path = packages.locate(self.path) if packages.is_packaged(self.path) else self.path
            file = from_gguf(Path(path)) if str(path).endswith(".gguf") else package.Tokenizer.from_file(str(path))
        except ImportError:
            raise
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(f"tokenizer.path ({self.path}) cannot be read: {error}") from error
        # Files are often saved with the padding and truncation of their last use.
        file.no_padding()
        file.no_truncation()
        if self.added_tokens:
            plain = {"normalized": False, "lstrip": True, "rstrip": True}
            file.add_special_tokens([package.AddedToken(token, **plain) for token in self.added_tokens])
        if (largest := max(file.get_vocab().values())) >= self.vocab:
            raise ValueError(f"{self.path} has ids up to {largest}, more than tokenizer.vocab ({self.vocab}) allows")
        return file
