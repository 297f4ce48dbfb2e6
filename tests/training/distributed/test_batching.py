"""Two ranks that measure, plan, read and drop together take the steps of one process."""

from itertools import islice

import pytest
import torch

from mmrnn.backbones import RWKV6
from mmrnn.data import Collator
from mmrnn.data.batching import Bucketed, Packed, Plain
from mmrnn.data.lengths import LengthStore, sample_lengths
from mmrnn.io import jsonl
from mmrnn.model.vlm import VLM
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import AdamW, Cosine, LanguageModel, Stage
from mmrnn.training.distributed.strategies import DDP, Single
from mmrnn.training.distributed.world import World
from mmrnn.training.error import TrainingError
from mmrnn.training.loop.stepper import Stepper
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.reading.loader import StepLoader
from mmrnn.training.reading.skipped import SKIPPED, SkippedSamples
from mmrnn.training.step import TrainStep
from mmrnn.types import MapDataset, Sample, Turn
from tests.training.distributed.ranks import run_ranks

BROKEN = (3, 11, 17)


class Texts(MapDataset):
    def __init__(self, count=40, broken=BROKEN):
        self.count, self.broken = count, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.broken:
            raise ValueError("it is torn")
        turns = (Turn("user", "why? " * (index * 7 % 11)), Turn("assistant", f"reply {index}"))
        return Sample(turns, id=str(index))


def take_steps(world, batching, folder, count=6, data=None, max_skipped=0.01):
    """Losses of some steps, the ids that this rank read, and whether a stored length was found."""
    data = data or Texts()
    torch.manual_seed(0)
    model = VLM(RWKV6(vocab=1024, width=16, depth=2, head_size=8, mix_rank=4, decay_rank=4), {})
    stage = Stage(train=("backbone",), steps=count, batch_size=8, grad_accum_steps=2, lr=1e-3)
    stage.apply_freezing(model)
    strategy = DDP() if world.size > 1 else Single()
    step = TrainStep(model, LanguageModel(reduction="token"))
    collate = Collator(DemoTokenizer(), RWKVChat(), {}, max_length=100, pack=batching.packs)
    lengths, store = None, LengthStore(folders=[folder])
    if batching.needs_lengths(world.size):
        lengths = sample_lengths(data, collate, store, world)
    given = {"rank": world.rank, "size": world.size, "lengths": lengths, "seed": 0}
    loader = StepLoader(data, collate, step.objective, stage, batching, **given)
    skipped = SkippedSamples(folder, world, max_skipped=max_skipped)
    skipped.start(data, 0)
    optimizer = AdamW(param_groups(model, lr_mult={}, layer_lr_decay={}), stage.lr)
    stepper = Stepper(
        step=step,
        stage=stage,
        optimizer=optimizer,
        schedule=Cosine(),
        strategy=strategy,
        world=world,
        precision="fp32",
        skipped=skipped,
    )
    try:
        losses = [result.loss for result in islice(stepper.steps(loader), count)]
        skipped.flush(loader.samples)
    except TrainingError as error:
        return str(error)
    return losses


@pytest.mark.parametrize(
    "batching", [Plain(), Packed(tokens=120), Bucketed(window=2)], ids=lambda one: type(one).__name__
)
def test_two_ranks_take_the_steps_of_one_process(batching, tmp_path):
    (tmp_path / "alone").mkdir()
    alone = take_steps(World(), batching, tmp_path / "alone")
    first, second = run_ranks(2, take_steps, tmp_path, batching, tmp_path)
    assert first == second == pytest.approx(alone, rel=1e-6)
    assert len(set(alone)) == 6
    # Six steps of eight: an epoch of forty, and eight more.
    lines, others = jsonl.records(tmp_path / SKIPPED), jsonl.records(tmp_path / "alone" / SKIPPED)
    assert {line["id"] for line in lines} == {f"#{number}" for number in BROKEN}
    assert [(line["id"], line["samples"]) for line in lines] == [(line["id"], line["samples"]) for line in others]
    assert {line["rank"] for line in others} == {0}
    assert len(list(tmp_path.glob(".lengths-*"))) == (not isinstance(batching, Plain))


def test_all_ranks_stop_where_too_many_are_left_out(tmp_path):
    data = Texts(400, broken=range(399))
    first, second = run_ranks(2, take_steps, tmp_path, Plain(), tmp_path, 60, data)
    assert first == second
    assert first.startswith("104 of the last 104 samples that were read are left out (100.0%), and max_skipped=0.01 ")
    assert "104  a sample cannot be read (first: #" in first
    assert {line["rank"] for line in jsonl.records(tmp_path / SKIPPED)} == {0, 1}
