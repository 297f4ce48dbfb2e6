"""Steps are read exactly: every sample once over ranks and workers, the same after a resume, with what was drawn."""

import random
import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from mmrnn.backbones import RWKV5, RWKV6, RWKV7, Transformer
from mmrnn.connectors import Linear
from mmrnn.data import Collator
from mmrnn.data.batching import Bucketed, Packed, Plain
from mmrnn.data.lengths import LengthStore, sample_lengths
from mmrnn.encoders import PatchEmbed
from mmrnn.model.vlm import VLM, Modality
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import LanguageModel, Stage
from mmrnn.training.distributed.world import World
from mmrnn.training.error import TrainingError
from mmrnn.training.loop.ready import next_usable
from mmrnn.training.reading.loader import StepLoader
from mmrnn.types import IGNORE, MapDataset, Sample, Turn


class Paint:
    """An image with random pixels, drawn from all three generators."""

    def __init__(self, key):
        self.key = key

    def open(self):
        pixels = [random.randrange(256), np.random.randint(256), int(torch.randint(256, ()))]
        return Image.new("RGB", (16, 16), tuple(pixels))


class Texts(MapDataset):
    """Samples of different lengths, some with an image."""

    def __init__(self, count, images=False, broken=()):
        self.count, self.with_images, self.broken = count, images, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.broken:
            raise ValueError(f"sample {index} is torn")
        shown = self.with_images and index % 3 == 0
        turns = (Turn("user", "<image>" * shown + "why? " * (index * 7 % 11)), Turn("assistant", f"reply {index}"))
        return Sample(turns, (Paint(str(index)),) if shown else (), id=str(index))


def model(backbone="rwkv6"):
    torch.manual_seed(0)
    made = VLM(
        BACKBONES[backbone](),
        {"image": Modality(PatchEmbed(patch=8, size=16, width=8, positions="none"), Linear(8, 16))},
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


SIZES = {"vocab": 1024, "width": 16, "depth": 2}
BACKBONES = {
    "rwkv5": lambda: RWKV5(**SIZES, head_size=8),
    "rwkv6": lambda: RWKV6(**SIZES, head_size=8, mix_rank=4, decay_rank=4),
    "rwkv7": lambda: RWKV7(**SIZES, head_size=8, decay_rank=4),
    "transformer": lambda: Transformer(**SIZES, heads=2, ffn=32),
}


def loader(data, batching=None, *, grad_accum_steps=1, batch_size=8, size=1, made=None, **knobs):
    pack = batching is not None and batching.packs
    modalities = {} if made is None else dict(made.modalities)
    collate = Collator(DemoTokenizer(), RWKVChat(), modalities, max_length=200, pack=pack)
    stage = Stage(batch_size=batch_size, grad_accum_steps=grad_accum_steps)
    lengths = None
    if batching is not None and batching.needs_lengths(size):
        lengths = sample_lengths(data, collate, LengthStore())
    knobs = {"seed": 0, "size": size, "lengths": lengths, **knobs}
    return StepLoader(data, collate, LanguageModel(), stage, batching, **knobs)


def rows(step):
    """Texts of a step: those of its rows, or of their segments."""
    found = []
    for batch in step.batches:
        sequence = batch.sequence
        segments = torch.zeros_like(sequence.ids) if sequence.segments is None else sequence.segments
        for ids, labels, parts in zip(sequence.ids, sequence.labels, segments, strict=True):
            for part in parts.unique():
                own = ids[(parts == part) & (labels != IGNORE)]
                found.append(DemoTokenizer().decode(own.tolist()))
    return found


def pixels(batch):
    return batch.images.get("image", torch.zeros(0))


BATCHINGS = [Plain(), Packed(tokens=300), Bucketed(window=3)]


@pytest.mark.parametrize("batching", BATCHINGS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_is_read_once_an_epoch(batching, workers):
    data = Texts(48)
    ranks = [
        list(islice(loader(data, batching, size=2, rank=rank, workers=workers, grad_accum_steps=2), 12))
        for rank in range(2)
    ]
    for steps in zip(*ranks, strict=True):
        assert len({len(step.micro_batches) for step in steps}) == 1
        assert len([name for step in steps for name in step.ids]) == 8
    for epoch in (slice(0, 6), slice(6, 12)):
        names = [name for steps in ranks for step in steps[epoch] for name in step.ids]
        assert Counter(names) == Counter(map(str, range(48)))
        texts = [text for steps in ranks for step in steps[epoch] for text in rows(step)]
        assert len(texts) == 48
        assert len(set(texts)) == 48


@pytest.mark.parametrize("batching", BATCHINGS, ids=lambda one: type(one).__name__)
def test_a_step_has_the_same_samples_on_any_number_of_ranks(batching):
    def read(size):
        ranks = [list(islice(loader(Texts(50), batching, size=size, rank=rank), 8)) for rank in range(size)]
        return [sorted(name for step in steps for name in step.ids) for steps in zip(*ranks, strict=True)]

    assert read(1) == read(2) == read(4)


@pytest.mark.parametrize("batching", BATCHINGS, ids=lambda one: type(one).__name__)
def test_a_resumed_loader_reads_and_draws_the_same(batching):
    """At any step, with another number of workers; random pixels included."""
    data, made = Texts(20, images=True, broken=(4, 11)), model()
    whole = loader(data, batching, made=made)
    steps, positions = [], [0]
    for _ in range(7):
        steps.append(next(whole))
        positions.append(whole.samples)
    assert len({image.sum().item() for step in steps for batch in step.batches for image in pixels(batch)}) > 5
    for start, workers in ((0, 2), (3, 0), (5, 1)):
        again = loader(data, batching, made=made, samples=positions[start], workers=workers)
        for step, expected in zip(again, steps[start:], strict=False):
            assert (step.ids, [one[:4] for one in step.dropped]) == (
                expected.ids,
                [one[:4] for one in expected.dropped],
            )
            for one, other in zip(step.batches, expected.batches, strict=True):
                assert torch.equal(one.sequence.ids, other.sequence.ids)
                assert torch.equal(pixels(one), pixels(other))
            if again.samples == positions[-1]:
                break


def test_the_generators_of_the_training_are_left_alone():
    made = model()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    next(loader(Texts(20, images=True), made=made))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_an_image_is_drawn_anew_in_every_epoch():
    steps = list(islice(loader(Texts(4, images=True), made=model(), batch_size=4), 2))
    assert sorted(steps[0].ids) == sorted(steps[1].ids)
    first, second = (step.batches[0].images["image"] for step in steps)
    assert set(first[:, 0, 0, 0].tolist()).isdisjoint(second[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_dropped(workers):
    steps = list(islice(loader(Texts(16, broken=(3,)), workers=workers), 2))
    [one] = [one for step in steps for one in step.dropped]
    assert (one.id, one.reason, one.detail) == ("#3", "a sample cannot be read", "ValueError: sample 3 is torn")
    assert (one.rank, one.worker) == (0, 0 if workers else None)
    assert sorted(name for step in steps for name in step.ids) == sorted(str(n) for n in range(16) if n != 3)


def test_a_rank_without_samples_has_empty_micro_batches():
    for rank in range(2):
        step = next(loader(Texts(9, broken=range(9)), Plain(), size=2, rank=rank, grad_accum_steps=2))
        assert step.micro_batches == [None, None]
        assert {(one.rank, one.id) for one in step.dropped} == {(rank, one.id) for one in step.dropped}
        assert len(step.dropped) == 4


class Pair(World):
    """Two ranks, of which the other one has samples in every second step."""

    calls = 0

    def sum(self, values):
        Pair.calls += 1
        return [value + (Pair.calls == 2) for value in values]


def test_ranks_read_on_together():
    found = loader(Texts(40, broken=range(40)), size=2, rank=1)
    ready = next_usable(found, LanguageModel(), Pair(rank=1, size=2))
    assert found.samples == 16
    assert ready.micro_batches == [None]
    assert len(ready.dropped) == 8


def test_a_silent_worker_is_named():
    class Stuck(Texts):
        def __getitem__(self, index):
            time.sleep(60)

    began = time.monotonic()
    with pytest.raises(TrainingError) as caught:
        next(loader(Stuck(8), workers=1, timeout=1.0, grad_accum_steps=4))
    assert time.monotonic() - began < 30
    message = str(caught.value)
    first = next(loader(Texts(8), grad_accum_steps=4)).ids[:2]
    assert message.startswith(f"the loader was silent for 1 s; rank 0 waits for the samples {', '.join(first)} of the")
    assert "(positions 0, 1 of the run)" in message
    assert message.endswith("raise loader_timeout")


def test_a_killed_worker_is_named():
    class Killed(Texts):
        def __getitem__(self, index):
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TrainingError, match=r"a worker process of the loader ended .*; rank 0 waits for the samples"):
        next(loader(Killed(8), workers=1))


def test_sizes_that_do_not_divide_and_lengths_that_are_missing_are_refused():
    with pytest.raises(ValueError, match=r"batch_size \(8\) must be a multiple of ranks x grad_accum_steps \(3 x 1\)"):
        loader(Texts(9), Plain(), size=3)
    for batching, size in ((Packed(), 2), (Bucketed(), 1)):
        with pytest.raises(ValueError, match=f"{type(batching).__name__} needs the lengths of the samples"):
            loader(Texts(8), batching, size=size, lengths=None)


def loss_and_gradients(made, steps, reduction):
    """Loss and gradients of a step of several ranks, each micro-batch weighted by its units."""
    objective, losses = LanguageModel(reduction=reduction), []
    batches = [batch for step in steps for batch in step.batches]
    total = sum(map(objective.num_units, batches))
    made.zero_grad()
    for batch in batches:
        loss = objective(made, made(batch)) * objective.num_units(batch) / total
        loss.backward()
        losses.append(loss.item())
    return sum(losses), {name: value.grad.clone() for name, value in made.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("reduction", ["sample", "token"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_packed_steps_have_the_loss_and_the_gradients_of_plain_ones(backbone, reduction):
    data, made = Texts(24, images=True), model(backbone)
    plain = next(loader(data, Plain(), made=made, batch_size=12, grad_accum_steps=2))
    loss, gradients = loss_and_gradients(made, [plain], reduction)
    # In one process, and over two ranks that plan with the lengths.
    packed = [[next(loader(data, Packed(tokens=200), made=made, batch_size=12))]]
    packed.append([next(loader(data, Packed(tokens=200), made=made, batch_size=12, size=2, rank=n)) for n in (0, 1)])
    for steps in packed:
        batches = [batch for step in steps for batch in step.batches]
        assert len(batches) > 1
        assert {len(batch.sequence.ids) for batch in batches} == {1}
        found, other = loss_and_gradients(made, steps, reduction)
        assert found == pytest.approx(loss, rel=1e-6)
        assert other.keys() == gradients.keys()
        for name, value in gradients.items():
            torch.testing.assert_close(other[name], value, atol=1e-7, rtol=1e-5 if value.norm() > 1e-4 else 1e-3)


def test_a_data_set_may_have_an_order_of_its_own():
    class Backwards(Texts):
        def order(self, seed):
            return lambda n: len(self) - 1 - n % len(self)

    steps = loader(Backwards(6), batch_size=3)
    assert [next(steps).ids for _ in range(3)] == [["5", "4", "3"], ["2", "1", "0"], ["5", "4", "3"]]
