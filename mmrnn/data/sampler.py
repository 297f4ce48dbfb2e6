"""In which order samples are read: pure functions of a counter, so that a run goes on where it stopped.

The counter `n` counts the samples of all ranks from the first step on. What a step reads depends on the order and the
step alone, so nothing but these two numbers (seed and step) has to be saved, and another number of ranks reads the
same samples at the same step as long as the whole batch keeps its size.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256

import torch
from jaxtyping import Int
from torch import Tensor

Order = Callable[[int], int]
"""`order(n)`: which sample is the n-th to be read."""


class ShuffledOrder:
    """Each epoch a new permutation: every sample once, then all again."""

    def __init__(self, size: int, *, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"size ({size}) must be at least 1; there is no sample to read")
        self.size, self.seed = size, seed

    def __call__(self, n: int) -> int:
        epoch, position = divmod(n, self.size)
        return int(_permutation(self.size, self.seed, epoch)[position])


class MagicPrimeOrder:
    """VisualRWKV's order: sample n^3 mod p, p the largest prime below `size` that leaves 2 when divided by 3, which
    makes cubing a permutation; from n = p on the samples are counted from the end.

    It goes round p samples only: the last `size - p` are first read in the second round, which misses the first ones.
    Take it to repeat a published run; `ShuffledOrder` reads everything equally often.
    """

    def __init__(self, size: int) -> None:
        prime = next((p for p in range(size - 1, 1, -1) if p % 3 == 2 and _is_prime(p)), None)
        if prime is None:
            raise ValueError(f"size ({size}) must be at least 3: there is no prime below it to count by")
        self.size, self.prime = size, prime

    def __call__(self, n: int) -> int:
        sample = n**3 % self.prime
        return sample if n < self.prime else self.size - 1 - sample


class ResumableBatchSampler:
    """The batches of one rank as lists of sample numbers, from step `start_step` up to `steps`: a `batch_sampler` for
    torch's DataLoader. Ranks take turns, sample by sample.
    """

    def __init__(
        self, order: Order, *, batch_size: int, steps: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank ({rank}) must lie between 0 and world_size ({world_size}) - 1")
        self.order, self.batch_size, self.steps, self.start_step = order, batch_size, steps, start_step
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[int]]:
        return (self.batch(step) for step in range(self.start_step, self.steps))

    def batch(self, step: int) -> list[int]:
        """What this rank reads at a step."""
        whole = self.batch_size * self.world_size
        return [self.order(n) for n in range(step * whole + self.rank, (step + 1) * whole, self.world_size)]


@lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> Int[Tensor, " size"]:
    # Seed and epoch are mixed: otherwise epoch 1 of seed 0 would be epoch 0 of seed 1.
    mixed = int.from_bytes(sha256(f"{seed} {epoch}".encode()).digest()[:7], "big")
    return torch.randperm(size, generator=torch.Generator().manual_seed(mixed))


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))
