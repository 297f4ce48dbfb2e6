"""The byte-level BPE that a GGUF file has in its header, as a tokenizer of the package `tokenizers`."""

from pathlib import Path
from typing import Any

SPECIAL = (3, 4)
"""Types of tokens that stand for no text: control tokens, and those that a model's author added."""

SPLITS = ("gpt-2", "smollm")
"""Ways of splitting a text before merging that are known here; smollm takes every digit for itself."""


def of_gguf(path: Path) -> Any:
    """
    Raises:
        ValueError: the file has no tokenizer, or one of another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from mmrnn.io.gguf import read_header

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
