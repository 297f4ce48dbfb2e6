"""Orders of reading, resumed at any place."""

import pytest

from mmrnn.data import MagicPrimeOrder, ShuffledOrder
from tests.data.readers.shards import rank_batches


@pytest.mark.golden
def test_cube_order_equals_the_original(golden):
    for case in golden("text")[0]["record_order"]:
        order = MagicPrimeOrder(case["dataset_size"])
        assert order.prime == case["prime"]
        for row in case["rows"]:
            ranks = case["world_size"]  # a rank reads every `ranks`-th sample
            epoch = case["epoch_steps"] * case["micro_batch"] * ranks
            numbers = range(row["epoch"] * epoch + row["rank"], (row["epoch"] + 1) * epoch, ranks)
            assert [order(n) for n in numbers] == row["records"]


@pytest.mark.parametrize("size", [3, 6, 12, 29, 101])
def test_cube_order_goes_round_a_prime_number_of_records(size):
    order = MagicPrimeOrder(size)
    first = {order(n) for n in range(order.prime)}
    second = {order(n) for n in range(order.prime, 2 * order.prime)}
    assert first == set(range(order.prime))
    assert second == set(range(size - order.prime, size))


@pytest.mark.parametrize("size", [0, 1, 2])
def test_cube_order_needs_a_prime(size):
    with pytest.raises(ValueError, match=rf"size \({size}\) must be at least 3"):
        MagicPrimeOrder(size)


def test_a_shuffle_reads_everything_once_an_epoch():
    order = ShuffledOrder(101, seed=3)
    epochs = [[order(epoch * 101 + position) for position in range(101)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(101)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_shuffle_depends_on_seed_and_counter_alone():
    ahead = [ShuffledOrder(50, seed=1)(n) for n in reversed(range(200))]
    assert ahead[::-1] == [ShuffledOrder(50, seed=1)(n) for n in range(200)]
    other = [ShuffledOrder(50, seed=2)(n) for n in range(200)]
    assert other != ahead[::-1]
    assert ahead[::-1][50:100] != other[:50], "epoch 1 of a seed must not be epoch 0 of the next"


def test_a_run_is_resumed_by_any_number_of_ranks():
    def read(start, stop, ranks):
        order, size = ShuffledOrder(37, seed=5), 12 // ranks
        ranks = [
            rank_batches(order, batch_size=size, start=start, stop=stop, rank=n, ranks=ranks) for n in range(ranks)
        ]
        return [sorted(record for rank in step for record in rank) for step in zip(*ranks, strict=True)]

    whole = read(0, 10, 1)
    assert read(0, 4, 2) + read(4, 7, 3) + read(7, 10, 4) == whole


def test_ranks_share_a_step_without_overlap():
    order = ShuffledOrder(24)
    ranks = [rank_batches(order, batch_size=3, start=0, stop=4, rank=rank, ranks=2) for rank in range(2)]
    read = [record for rank in ranks for batch in rank for record in batch]
    assert sorted(read) == list(range(24))


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match=r"size \(0\) must be at least 1"):
        ShuffledOrder(0)
