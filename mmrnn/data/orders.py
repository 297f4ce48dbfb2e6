"""Orders of data sets that are not shuffled as a whole: shard by shard, and mixtures of such data sets.

As in `mmrnn.data.sampler`, an order is a pure function of a counter: a run resumes at any sample.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np

from mmrnn.data.sampler import Order, ShuffledOrder, mixed_seed


class ShardOrder:
    """Shards in a new random order each epoch, their records shuffled in a buffer.

    The records of the shards, one shard after the other, are a stream, and every `buffer` consecutive ones of it are
    shuffled among themselves. The n-th sample therefore needs no more than the shards that its buffer lies in, and a
    run resumes at any n by reading that buffer again.

    Args:
        sizes: number of records of each shard.
        buffer: records that are shuffled among themselves.
        seed: of the orders.

    Raises:
        ValueError: there are no records, or `buffer` is below 1.
    """

    def __init__(self, sizes: Sequence[int], *, buffer: int, seed: int = 0) -> None:
        if sum(sizes) < 1:
            raise ValueError("the shards hold no records")
        if buffer < 1:
            raise ValueError(f"buffer ({buffer}) must be at least 1")
        self.sizes, self.buffer, self.seed = tuple(sizes), buffer, seed
        self.starts = [0, *accumulate(sizes)]
        self.size = self.starts[-1]

    def __call__(self, n: int) -> int:
        """Return the index of the n-th sample."""
        epoch, position = divmod(n, self.size)
        first = position - position % self.buffer
        within = _permutation(min(self.buffer, self.size - first), self.seed, f"{epoch} {first}")[position - first]
        shards = _permutation(len(self.sizes), self.seed, f"shards {epoch}")
        ends = _ends(self.sizes, self.seed, epoch)
        place = first + int(within)
        number = bisect_right(ends, place)
        return self.starts[shards[number]] + place - (ends[number - 1] if number else 0)


class MixedOrder:
    """Parts of a mixture in random turn, each in its own order.

    Args:
        sizes: number of samples of each part in an epoch, which is that of its indices.
        orders: of the parts, over the distinct samples of each; None: a part is shuffled.
        seed: of the turns and of parts without an order.
    """

    def __init__(self, sizes: Sequence[int], orders: Sequence[Order | None], *, seed: int = 0) -> None:
        self.sizes, self.seed = tuple(sizes), seed
        self.starts = [0, *accumulate(sizes)]
        self.size = self.starts[-1]
        self.orders = [
            order or ShuffledOrder(size, seed=mixed_seed(seed, f"part {number}"))
            for number, (order, size) in enumerate(zip(orders, sizes, strict=True))
        ]

    def __call__(self, n: int) -> int:
        """Return the index of the n-th sample."""
        epoch, position = divmod(n, self.size)
        parts, turns = _turns(self.sizes, self.seed, epoch)
        part = int(parts[position])
        return self.starts[part] + self.orders[part](epoch * self.sizes[part] + int(turns[position]))


@lru_cache(maxsize=16)
def _permutation(size: int, seed: int, name: str) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(mixed_seed(seed, name))).permutation(size)


@lru_cache(maxsize=4)
def _ends(sizes: tuple[int, ...], seed: int, epoch: int) -> list[int]:
    """End of each shard in the stream of an epoch."""
    return list(accumulate(sizes[shard] for shard in _permutation(len(sizes), seed, f"shards {epoch}")))


@lru_cache(maxsize=2)
def _turns(sizes: tuple[int, ...], seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Part of each sample of an epoch, and its number among those of the part."""
    parts = np.repeat(np.arange(len(sizes), dtype=np.uint16), sizes)
    np.random.Generator(np.random.PCG64(mixed_seed(seed, f"turns {epoch}"))).shuffle(parts)
    numbers = np.empty(len(parts), np.uint32)
    for part, size in enumerate(sizes):
        numbers[parts == part] = np.arange(size, dtype=np.uint32)
    return parts, numbers
