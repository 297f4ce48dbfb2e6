"""Orders by shards and of mixtures: every sample once, near its neighbours, from any position."""

from itertools import pairwise

import pytest

from mmrnn.data.orders import MixedOrder, ShardOrder

SIZES = [10, 0, 7, 1, 30, 12]
TOTAL = sum(SIZES)


@pytest.mark.parametrize("buffer", [1, 7, 16, 1000])
def test_every_record_once_an_epoch(buffer):
    order = ShardOrder(SIZES, buffer=buffer, seed=3)
    epochs = [[order(epoch * TOTAL + n) for n in range(TOTAL)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(TOTAL)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    other = ShardOrder(SIZES, buffer=buffer, seed=4)
    assert epochs[0] != [other(n) for n in range(TOTAL)]


def test_any_position_is_known_without_those_before_it():
    order = ShardOrder(SIZES, buffer=7, seed=3)
    assert [ShardOrder(SIZES, buffer=7, seed=3)(n) for n in reversed(range(200))] == [order(n) for n in range(200)][
        ::-1
    ]


def test_a_buffer_needs_few_shards():
    """Of 100 shards of 20 records, 40 consecutive samples need at most three; in random order most of 40 would."""
    order = ShardOrder([20] * 100, buffer=40, seed=1)
    for first in range(0, 2000, 40):
        assert len({order(n) // 20 for n in range(first, first + 40)}) <= 3
    read = [order(n) for n in range(40)]
    assert sum(abs(a - b) == 1 for a, b in pairwise(read)) < 10, "a buffer is shuffled"


def test_shards_come_in_another_order_each_epoch():
    order = ShardOrder([5] * 20, buffer=1, seed=1)
    shards = [[order(epoch * 100 + 5 * n) // 5 for n in range(20)] for epoch in range(2)]
    assert sorted(shards[0]) == list(range(20))
    assert shards[0] != shards[1]
    assert shards[0] != sorted(shards[0])


def test_a_mixture_keeps_the_orders_of_its_parts():
    """Part 0 has 10 samples and 15 places in an epoch, so that half of its samples are read twice."""
    order = MixedOrder([15, 20], [lambda n: n % 10, None], seed=2)
    for epoch in range(4):
        read = [order(35 * epoch + n) for n in range(35)]
        first = [index for index in read if index < 15]
        assert first == [(15 * epoch + n) % 10 for n in range(15)]
        assert sorted(index for index in read if index >= 15) == list(range(15, 35))
        assert read.index(first[5]) < 34 - read[::-1].index(first[10])
    turns = ["".join("ab"[order(35 * epoch + n) >= 15] for n in range(35)) for epoch in range(2)]
    assert turns[0] != turns[1]
    assert [MixedOrder([15, 20], [None, None], seed=2)(n) >= 15 for n in range(35)] == [x == "b" for x in turns[0]]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"sizes": [0], "buffer": 1}, "the shards hold no records"),
        ({"sizes": [3], "buffer": 0}, r"buffer \(0\) must be at least 1"),
    ],
)
def test_faults_are_said(knobs, message):
    with pytest.raises(ValueError, match=message):
        ShardOrder(**knobs)
