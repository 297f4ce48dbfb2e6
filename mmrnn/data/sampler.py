"""Order in which samples are read: pure functions of a counter, so that a run can be resumed at any step.

The counter `n` counts the samples of all ranks from the first step. The samples of a step depend on the order and the
step alone: seed and step are all that is saved, and another number of ranks reads the same samples at the same step as
long as the global batch size stays the same.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256
from itertools import count

import torch
from jaxtyping import Int
from torch import Tensor

Order = Callable[[int], int]
"""`order(n)`: index of the n-th sample to read."""


class ShuffledOrder:
    """A new random permutation for each epoch.

    Args:
        size: number of samples.
        seed: of the permutations.

    Raises:
        ValueError: size is below 1.
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"size ({size}) must be at least 1; the data set is empty")
        self.size, self.seed = size, seed

    def __call__(self, n: int) -> int:
        """Return the index of the n-th sample."""
        epoch, position = divmod(n, self.size)
        return int(_permutation(self.size, self.seed, epoch)[position])


class MagicPrimeOrder:
    """Order of VisualRWKV: sample n^3 mod p, with p the largest prime below `size` that is 2 mod 3.

    Cubing modulo p is a permutation. From n = p on, samples are counted from the end. An epoch covers p samples: the
    last `size - p` are first read in the second epoch, which misses the first ones. Use it to reproduce a published
    run; `ShuffledOrder` reads all samples equally often.

    Args:
        size: number of samples.

    Raises:
        ValueError: size is below 3.
    """

    def __init__(self, size: int) -> None:
        prime = next((p for p in range(size - 1, 1, -1) if p % 3 == 2 and _is_prime(p)), None)
        if prime is None:
            raise ValueError(f"size ({size}) must be at least 3: no prime below it is 2 mod 3")
        self.size, self.prime = size, prime

    def __call__(self, n: int) -> int:
        """Return the index of the n-th sample."""
        sample = n**3 % self.prime
        return sample if n < self.prime else self.size - 1 - sample


class ResumableBatchSampler:
    """Batches of one rank as lists of sample indices: a `batch_sampler` for torch's DataLoader.

    Rank r reads every `world_size`-th sample, beginning with the r-th.

    Args:
        order: of all samples.
        batch_size: of one rank.
        steps: where to stop; None: never.
        start_step: where to begin.
        rank: of this process.
        world_size: number of ranks.

    Raises:
        ValueError: rank is not below world_size.
    """

    def __init__(
        self,
        order: Order,
        *,
        batch_size: int,
        steps: int | None,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank ({rank}) must lie between 0 and world_size ({world_size}) - 1")
        self.order, self.batch_size, self.steps, self.start_step = order, batch_size, steps, start_step
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        if self.steps is None:
            raise TypeError("batches without end have no number; set steps")
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[int]]:
        numbers = count(self.start_step) if self.steps is None else range(self.start_step, self.steps)
        return (self.batch(step) for step in numbers)

    def batch(self, step: int) -> list[int]:
        """Return the sample indices of this rank at a step."""
        whole = self.batch_size * self.world_size
        return [self.order(n) for n in range(step * whole + self.rank, (step + 1) * whole, self.world_size)]


def mixed_seed(seed: int, name: str) -> int:
    """Return a hash of a seed and a name: another pair has another seed."""
    return int.from_bytes(sha256(f"{seed} {name}".encode()).digest()[:7], "big")


@lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> Int[Tensor, " size"]:
    # Hashed: otherwise epoch 1 of seed 0 could be epoch 0 of seed 1.
    found = torch.randperm(size, generator=torch.Generator().manual_seed(mixed_seed(seed, str(epoch))))
    return found.to(torch.int32) if size < 2**31 else found  # every rank of a machine has its own


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))
