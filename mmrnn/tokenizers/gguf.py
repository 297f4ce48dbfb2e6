"""Byte-level BPE in the header of a GGUF file, as a tokenizer of the package `tokenizers`."""

from pathlib import Path
from typing import Any

from mmrnn.io.gguf import read_header

SPECIAL = (3, 4)
"""GGUF token types of special tokens: control and user-defined."""

SPLITS = ("gpt-2", "smollm")
"""Supported pre-tokenizers; that of smollm splits every digit off."""


def from_gguf(path: Path) -> Any:
    """Build the tokenizer of a GGUF file.

    Raises:
        ValueError: the file has no tokenizer, or one that is not supported here.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    facts = read_header(path).metadata
    kind, split = facts.get("tokenizer.ggml.model"), facts.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or split not in SPLITS:
        raise ValueError(f"its tokenizer is {kind}/{split}; known are gpt2 with {' or '.join(SPLITS)}")
    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ", 1)) for pair in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
    digits = [pre_tokenizers.Digits(individual_digits=True)] if split == "smollm" else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, facts.get("tokenizer.ggml.token_type", [1] * len(tokens)), strict=True)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in kinds if kind in SPECIAL]
    )
    return tokenizer
