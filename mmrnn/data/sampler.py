"""Order in which samples are read: pure functions of a counter, so that a run can be resumed at any step.

The counter `n` counts the samples of all ranks from the first step. The samples of a step depend on the order and the
step alone: seed and step are all that is saved, and another number of ranks reads the same samples at the same step as
long as the global batch size stays the same.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256

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
