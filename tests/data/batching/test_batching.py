"""Plans of steps: every sample once an epoch, balanced over ranks, with little or no padding, from any position on."""

import random
import time
from itertools import islice

import pytest

from mmrnn.data.batching import Auto, Bucketed, Packed, Plain
from mmrnn.data.sampler import ShuffledOrder
from mmrnn.types import Backbone, Batching, MapDataset, Objective, StepSpec


def llava_like(count, seed=0):
    """Lengths of samples as in LLaVA's instruction mix: 577 visual tokens and a long-tailed text, or text alone."""
    rng = random.Random(seed)
    texts = [min(int(rng.lognormvariate(5.0, 0.8)) + 20, 1400) for _ in range(count)]
    return [text + (577 if rng.random() < 0.94 else 0) for text in texts]


def spec_of(size=1000, *, batch_size=16, ranks=1, grad_accum_steps=1, seed=0, known=True):
    lengths, order = llava_like(size), ShuffledOrder(size, seed=seed)
    length = (lambda n: lengths[order(n)]) if known else None
    return StepSpec(batch_size, grad_accum_steps, ranks, size, seed, length)


def flat(plan):
    return [n for rank in plan for micro_batch in rank for n in micro_batch]


ALL = [Plain(), Packed(tokens=4096), Bucketed(window=8)]


@pytest.mark.parametrize("batching", ALL, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(("ranks", "grad_accum_steps"), [(1, 1), (2, 4), (4, 1)])
def test_every_position_is_read_once(batching, ranks, grad_accum_steps):
    spec = spec_of(ranks=ranks, grad_accum_steps=grad_accum_steps)
    steps = list(islice(batching.plans(0, spec), 188))
    for plan in steps:
        assert len(plan) == ranks
        assert len({len(rank) for rank in plan}) == 1
        assert len(flat(plan)) == 16
    # So many steps begin in the first epochs of 1000 samples.
    for count in (63, 125, 188):
        assert sorted(n for plan in steps[:count] for n in flat(plan)) == list(range(count * 16))


@pytest.mark.parametrize("batching", ALL, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("start", [0, 5])
def test_a_plan_depends_on_its_position_alone(batching, start):
    spec = spec_of(batch_size=12, ranks=2)
    whole = list(islice(batching.plans(start, spec), 200))
    for step in (1, 7, 8, 83, 84, 85, 120, 199):
        assert next(batching.plans(start + step * 12, spec)) == whole[step]


@pytest.mark.parametrize("seed", range(20))
def test_sizes_of_every_kind(seed):
    """Epochs shorter than a step, windows of one step, more ranks than samples, samples without a length."""
    rng = random.Random(seed)
    epoch, size, start = rng.randint(1, 60), rng.randint(1, 20), rng.randint(0, 200)
    lengths = [rng.randint(0, 50) for _ in range(epoch)]
    for ranks in (1, 2, 5):
        spec = StepSpec(size * ranks, 1, ranks, epoch, seed, lambda n: lengths[n % epoch])
        for batching in (Packed(tokens=rng.choice([20, 60, 300])), Bucketed(window=rng.randint(1, 6))):
            plans = list(islice(batching.plans(start, spec), 30))
            assert all(len({len(rank) for rank in plan}) == 1 for plan in plans)
            assert {len(flat(plan)) for plan in plans} == {size * ranks}
            for step in (1, 7, 23):
                assert next(batching.plans(start + step * size * ranks, spec)) == plans[step]
            read = [n for plan in plans for n in flat(plan)]
            assert len(set(read)) == len(read)


def test_plain_takes_the_order_as_it_is():
    assert next(Plain().plans(8, StepSpec(8))) == [[[8, 9, 10, 11, 12, 13, 14, 15]]]
    assert next(Plain().plans(8, StepSpec(8, 2, 2))) == [[[8, 9], [10, 11]], [[12, 13], [14, 15]]]


@pytest.mark.parametrize("batching", [Plain(), Bucketed()])
def test_sizes_that_do_not_divide_are_refused(batching):
    message = r"batch_size \(10\) must be a multiple of ranks x grad_accum_steps \(2 x 3\); the nearest are 6 and 12"
    with pytest.raises(ValueError, match=message):
        batching.check_sizes(StepSpec(10, 3, 2))
    batching.check_sizes(StepSpec(12, 3, 2))
    Packed().check_sizes(StepSpec(10, 3, 2))


def padding(steps, length, rows_of=lambda micro_batch: [[n] for n in micro_batch]):
    held = real = 0
    for plan in steps:
        for micro_batch in (one for rank in plan for one in rank):
            rows = rows_of(micro_batch)
            sizes = [sum(length(n) for n in row) for row in rows]
            held, real = held + len(rows) * max(sizes), real + sum(sizes)
    return 1 - real / held


def test_padding_of_lengths_like_those_of_llava():
    spec = spec_of(40_000, batch_size=128, ranks=2, grad_accum_steps=2)
    plain, bucketed = (padding(islice(batching.plans(0, spec), 256), spec.length) for batching in (Plain(), Bucketed()))
    assert plain > 0.3
    assert bucketed < 0.03
    packed = list(islice(Packed().plans(0, spec), 20))
    assert padding(packed, spec.length, lambda micro_batch: [micro_batch]) == 0


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize("batching", [Packed(), Bucketed()], ids=["packed", "bucketed"])
def test_tokens_are_balanced_over_ranks(batching, ranks):
    spec = spec_of(40_000, batch_size=128, ranks=ranks, grad_accum_steps=4)
    for plan in islice(batching.plans(0, spec), 100):
        tokens = [sum(spec.length(n) for one in rank for n in one) for rank in plan]
        assert max(tokens) / (sum(tokens) / ranks) < 1.05


@pytest.mark.parametrize("ranks", [1, 3])
def test_rows_keep_to_their_tokens(ranks):
    spec, batching = spec_of(batch_size=48, ranks=ranks), Packed(tokens=2048)
    for plan in islice(batching.plans(0, spec), 40):
        rows = [sum(spec.length(n) for n in row) for rank in plan for row in rank]
        assert max(rows) <= 2048
        # As few as the samples need, for every rank as many.
        assert len(rows) <= ranks * (1.35 * sum(rows) / 2048 / ranks + 1)


def test_a_step_of_thousands_is_planned_at_once():
    """Two samples of 900 tokens fill a row of 2048: many more rows than tokens alone would need."""
    began = time.perf_counter()
    [[*rows]] = next(Packed(tokens=2048).plans(0, StepSpec(4096, length=lambda n: 900 + n % 100)))
    assert time.perf_counter() - began < 2
    assert max(map(len, rows)) == 2
    assert 2048 <= len(rows) < 2048 * 1.04


def test_a_sample_longer_than_a_row_has_one_of_its_own():
    lengths = [50, 10, 10, 200, 40]
    spec = StepSpec(5, 1, 1, 5, 0, lambda n: lengths[n])
    [rows] = next(Packed(tokens=60).plans(0, spec))
    assert [3] in rows
    assert all(sum(lengths[n] for n in row) <= 60 for row in rows if row != [3])


def test_more_ranks_than_samples_leave_some_with_none():
    spec = StepSpec(2, 1, 3, 10, 0, lambda _: 5)
    plan = next(Packed(tokens=16).plans(0, spec))
    assert sorted(map(len, plan)) == [1, 1, 1]
    assert sorted(plan) == [[[]], [[0]], [[1]]]


def test_one_process_packs_what_it_has_read():
    batching = Packed(tokens=4096)
    assert not batching.needs_lengths(1)
    assert batching.needs_lengths(2)
    assert next(batching.plans(32, spec_of(known=False))) == [[list(range(32, 48))]]
    spec = spec_of()
    planned = next(batching.plans(32, spec))[0]
    split = batching.split([spec.length(n) for n in range(32, 48)])
    assert [[32 + index for index in row] for row in split] == planned
    assert batching.split([]) == [[]]


def test_windows_differ_with_the_seed():
    one, other = (
        [flat(plan) for plan in islice(Bucketed(window=8).plans(0, spec_of(seed=seed)), 8)] for seed in (0, 1)
    )
    assert one != other
    lengths = [spec_of().length(n) for n in one[0]]
    assert lengths == sorted(lengths)


class Language(Backbone):
    def __init__(self, recurrent, axes=1):
        self.recurrent, self.axes = recurrent, axes

    embed = __call__ = head = state = None


class Words(Objective):
    def __call__(self, model, output): ...


class Pairs(Words):
    compares_samples = True


class Stored(MapDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index): ...


class Generated(Stored):
    generated = True


@pytest.mark.parametrize(
    ("backbone", "objective", "data", "ranks", "expected"),
    [
        (Language(True), Words(), Stored(), 1, Packed),
        (Language(True), Words(), Stored(), 8, Packed),
        (Language(True), Words(), Generated(), 1, Plain),
        (Language(True), Words(), Generated(), 2, Plain),
        (Language(True), Pairs(), Stored(), 1, Bucketed),
        (Language(False), Words(), Stored(), 1, Bucketed),
        (Language(False, 0), Words(), Stored(), 2, Bucketed),
        (Language(False), Words(), Generated(), 1, Plain),
    ],
)
def test_auto_chooses_for_the_run(backbone, objective, data, ranks, expected):
    chosen = Auto(tokens=99, window=3).resolve(backbone, objective, data, ranks)
    assert type(chosen) is expected
    assert {"tokens": 99, "window": 3}.items() >= vars(chosen).items()
    with pytest.raises(TypeError, match="resolve"):
        Auto().plans(0, StepSpec(1))


def test_packed_refuses_what_reads_one_sample_a_row():
    assert isinstance(Packed().resolve(Language(True), Words(), Stored(), 1), Packed)
    for backbone, objective, name in ((Language(False, 0), Words(), "Language"), (Language(True), Pairs(), "Pairs")):
        with pytest.raises(ValueError, match=f"batching: {name} .*; use batching=bucketed"):
            Packed().resolve(backbone, objective, Stored(), 1)


@pytest.mark.parametrize("make", [lambda: Packed(tokens=0), lambda: Bucketed(window=0)])
def test_knobs_out_of_range(make):
    with pytest.raises(ValueError, match="must be at least 1"):
        make()


def test_a_batching_of_ones_own_needs_one_method():
    class Pairwise(Batching):
        def plans(self, position, spec):
            while True:
                yield [[[position, position + 1]]]
                position += spec.batch_size

    one = Pairwise()
    assert one.resolve(Language(True), Words(), Stored(), 1) is one
    assert one.split([3, 4]) == [[0, 1]]
    assert not one.needs_lengths(1)
