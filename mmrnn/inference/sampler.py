"""Choice of the next token."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class TokenSampler(Protocol):
    """Choice of the next token of every row."""

    def __call__(
        self, logits: Float[Tensor, "b vocab"], generators: Sequence[torch.Generator] | None = None
    ) -> Int[Tensor, " b"]:
        """Choose an id for every row.

        Args:
            logits: of the next token.
            generators: of random numbers, one a row; None: torch's default for all of them.
        """


@dataclass(frozen=True)
class Sampler(TokenSampler):
    """Sampling of the next token.

    Args:
        temperature: divides the logits; 0: take the most likely token.
        top_k: sample among the k most likely tokens; 0: all.
        top_p: sample among the most likely tokens that together have this probability (nucleus sampling, arXiv
            1904.09751); 0: take the most likely token.

    Raises:
        ValueError: a value outside its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature ({self.temperature}) must be a finite number from 0 on; 0 is greedy")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k ({self.top_k}) must be a whole number from 0 on; 0 allows all tokens")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p ({self.top_p}) must lie between 0 and 1; 1 allows all tokens")

    def __call__(
        self, logits: Float[Tensor, "b vocab"], generators: Sequence[torch.Generator] | None = None
    ) -> Int[Tensor, " b"]:
        """Draw an id for every row, each with its own generator.

        Raises:
            ValueError: a row of logits is not finite.
        """
        best = logits.argmax(-1, keepdim=True)
        peak = logits.gather(-1, best)
        # The peak is NaN if any logit is, and infinite if any is or all are.
        if not peak.isfinite().all():
            raise ValueError(
                "the logits are not finite (nan or inf); the weights or the inputs of the model are damaged"
            )
        if self.temperature == 0 or self.top_p == 0:
            return best.squeeze(-1)
        # Below zero and in fp64, so that a tiny temperature is greedy instead of inf - inf.
        probability = ((logits.double() - peak.double()) / self.temperature).softmax(-1)
        if self.top_k:
            # By the logits, because a large temperature rounds probabilities to ties.
            least = logits.topk(min(self.top_k, logits.shape[-1])).values[:, -1:]
            probability = probability.masked_fill(logits < least, 0)
        if self.top_p < 1:
            ordered, index = (probability / probability.sum(-1, keepdim=True)).sort(descending=True)
            # A token is kept while those before it do not reach top_p, so the most likely one always is.
            drop = ordered.cumsum(-1) - ordered >= self.top_p
            probability = probability.masked_fill(drop.scatter(-1, index, drop), 0)
        if generators is None:
            return torch.multinomial(probability, 1).squeeze(-1)
        drawn = [torch.multinomial(row, 1, generator=own) for row, own in zip(probability, generators, strict=True)]
        return torch.cat(drawn)


def seeded_generators(seeds: Sequence[int] | None, rows: int, device: torch.device) -> list[torch.Generator]:
    """Return one generator for each row, so that a row does not depend on the others.

    Args:
        seeds: of the rows; None: drawn from torch's default generator.

    Raises:
        ValueError: seeds and rows differ in number, or a seed is negative or has more than 63 bits.
    """
    if seeds is None:
        seeds = [int(torch.randint(2**63 - 1, ())) for _ in range(rows)]
    if len(seeds) != rows:
        raise ValueError(f"there are {len(seeds)} seeds for {rows} rows; give one seed for each row")
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ValueError(f"the seed {seed} must lie between 0 and 2^63 - 1")
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]
