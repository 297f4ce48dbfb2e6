"""Orders of reading, and going on in the middle of one."""

import pytest

from mmrnn.data import MagicPrimeOrder, ResumableBatchSampler, ShuffledOrder


@pytest.mark.golden
def test_cube_order_equals_the_original(golden):
    for case in golden("text")[0]["record_order"]:
        order = MagicPrimeOrder(case["dataset_size"])
        assert order.prime == case["prime"]
        for row in case["rows"]:
            batches = ResumableBatchSampler(
                order,
                batch_size=case["micro_batch"],
                start_step=row["epoch"] * case["epoch_steps"],
                steps=(row["epoch"] + 1) * case["epoch_steps"],
                rank=row["rank"],
                world_size=case["world_size"],
            )
            assert [record for batch in batches for record in batch] == row["records"]


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


def test_a_run_goes_on_where_it_stopped_with_any_number_of_ranks():
    def read(start, stop, world):
        ranks = [
            ResumableBatchSampler(
                ShuffledOrder(37, seed=5),
                batch_size=12 // world,
                start_step=start,
                steps=stop,
                rank=rank,
                world_size=world,
            )
            for rank in range(world)
        ]
        return [sorted(record for rank in step for record in rank) for step in zip(*ranks, strict=True)]

    whole = read(0, 10, 1)
    assert read(0, 4, 2) + read(4, 7, 3) + read(7, 10, 4) == whole
    assert len(ResumableBatchSampler(ShuffledOrder(37), batch_size=12, start_step=4, steps=10)) == 6


def test_ranks_share_a_step_without_overlap():
    ranks = [
        ResumableBatchSampler(ShuffledOrder(24), batch_size=3, steps=4, rank=rank, world_size=2) for rank in range(2)
    ]
    read = [record for rank in ranks for batch in rank for record in batch]
    assert sorted(read) == list(range(24))


def test_faults_are_said():
    with pytest.raises(ValueError, match=r"size \(0\) must be at least 1"):
        ShuffledOrder(0)
    with pytest.raises(ValueError, match=r"rank \(2\) must lie between 0 and world_size \(2\) - 1"):
        ResumableBatchSampler(ShuffledOrder(3), batch_size=1, steps=1, rank=2, world_size=2)
