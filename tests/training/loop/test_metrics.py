"""A meter counts real tokens, images, waiting and FLOPs, and sums them over the processes."""

import threading

import pytest
import torch

from mmrnn.backbones import RWKV6
from mmrnn.bench.data_sheets import GPUS
from mmrnn.connectors import Linear
from mmrnn.encoders import PatchEmbed
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import Stage
from mmrnn.training.distributed.world import World
from mmrnn.training.loop import metrics
from mmrnn.training.loop.metrics import DEVICE_NAMES, Meter, peak_flops, real_tokens
from mmrnn.training.plan import StepCost, plan_stage, step_cost
from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Layout, Sequence

PAD = 0


def batch(rows, labels=None, images=0) -> Batch:
    spans = tuple(ImageSpan(0, 0, Layout(rows=1, cols=1)) for _ in range(images))
    given = None if labels is None else torch.tensor(labels)
    return Batch(Sequence(torch.tensor(rows), spans, labels=given))


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when set."""
    now = [100.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    return now


def test_real_tokens():
    """Padding is what follows the last token; a pad inside, or one that is learnt, is a token."""
    assert real_tokens(batch([[5, SLOT, 7, 8], [5, PAD, 6, PAD], [PAD] * 4]), PAD) == 4 + 3
    labels = [[IGNORE, 6, PAD, IGNORE]]
    assert real_tokens(batch([[5, 6, PAD, PAD]], labels), PAD) == 3
    assert real_tokens(batch([[5, 6, 7, PAD]]), pad=9) == 4


def test_figures_of_a_process(clock):
    meter = Meter(pad=PAD, cost=StepCost(2e9, {"image": 1e12}), peak=50e12)
    for _ in range(2):
        with meter.step():
            with meter.waiting():
                clock[0] += 1.0
            assert meter.count([batch([[5, 6, 7, 8], [5, 6, PAD, PAD]], images=3), None], samples=2) == 6
            clock[0] += 3.0
        clock[0] += 100.0  # evaluation, saving
    found = meter.record()
    assert found.pop("peak_memory_gib") > 0.01
    flops = 2 * (6 * 2e9 + 3 * 1e12)
    assert found == {
        "seconds": 8.0,
        "tokens_per_second": 1.5,
        "samples_per_second": 0.5,
        "images_per_second": 0.75,
        "padding": 0.25,
        "data_wait": 0.25,
        "tflops": pytest.approx(flops / 8 / 1e12, rel=1e-3),
        "mfu": pytest.approx(flops / 8 / 50e12, rel=1e-3),
    }
    with meter.step():
        clock[0] += 1.0
    assert meter.record()["tokens_per_second"] == 0.0, "a record begins anew"


def test_what_is_not_known_is_left_out(clock):
    for meter, absent in ((Meter(), {"tflops", "mfu"}), (Meter(cost=StepCost(1.0, {})), {"mfu"})):
        with meter.step():
            clock[0] += 1.0
        assert {"tflops", "mfu"} - meter.record().keys() == absent


class TwoRanks(World):
    """World of two processes that are threads."""

    def _both(self, values, combine):
        shared, barrier = self.shared
        shared[self.rank] = values
        barrier.wait(10)
        found = [combine(pair) for pair in zip(*shared, strict=True)]
        barrier.wait(10)
        return found

    def sum(self, values):
        return self._both(values, sum)

    def max(self, values):
        return self._both(values, max)


def test_figures_of_two_processes(monkeypatch):
    """Tokens are summed, the slowest process counts, and the one that waits most; FLOPs are those of a device."""
    times, shared, found = threading.local(), ([None, None], threading.Barrier(2)), [None, None]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: times.now)

    def run(rank):
        times.now = 0.0
        world = TwoRanks(rank, 2)
        object.__setattr__(world, "shared", shared)
        meter = Meter(world, pad=PAD, cost=StepCost(1e12, {}), peak=4e12)
        with meter.step():
            with meter.waiting():
                times.now += (1.0, 0.0)[rank]
            meter.count([batch([[5, 6, PAD, PAD]] if rank else [[5, 6, 7, 8]])], samples=1 + rank)
            times.now += (1.0, 4.0)[rank]
        found[rank] = meter.record()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found[0] == found[1]
    assert found[0].pop("peak_memory_gib") > 0
    assert found[0] == {
        "seconds": 4.0,
        "tokens_per_second": 1.5,
        "samples_per_second": 0.75,
        "images_per_second": 0.0,
        "padding": 0.25,
        "data_wait": 0.5,
        "tflops": 0.75,
        "mfu": 0.1875,
    }


@pytest.fixture
def model():
    with torch.device("meta"):
        encoder = PatchEmbed(size=32, patch=8, width=24)
        backbone = RWKV6(vocab=100, width=32, depth=2, head_size=16)
        return VLM(backbone, {"image": Modality(encoder, Linear(24, 32))})


@pytest.mark.parametrize("train", [["backbone"], ["connector"], ["encoder", "backbone"]])
def test_the_cost_of_steps_is_that_of_the_plan(model, train):
    stage = Stage(train=train, steps=10, batch_size=8)
    for every in (0, 1):
        model.backbone.grad_checkpointing = every
        planned = plan_stage(model, stage, GPUS["a100_40g"], text_tokens=4)
        cost = step_cost(model, stage)
        assert cost.flops(10 * 8 * planned.tokens, {"image": 10 * 8}) == pytest.approx(planned.flops)
        cached = step_cost(model, stage, cached=["image"])
        assert cost.inputs["image"] - cached.inputs["image"] == planned.parts[0].flops


def test_no_cost_without_a_language_model_or_a_size(model):
    stage = Stage(train=["backbone"], steps=1)
    model.backbone.width = None
    assert step_cost(model, stage) is None


def test_the_peak_of_flops_is_known_for_named_gpus(monkeypatch):
    assert peak_flops(torch.device("cpu")) is None
    for name, expected in (("NVIDIA H200", 989e12), ("NVIDIA H100 PCIe", None)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_flops(torch.device("cuda", 0)) == expected
    assert set(DEVICE_NAMES.values()) <= set(GPUS)
