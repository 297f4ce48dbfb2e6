"""A shard that vanishes or is cut while a run reads it: its samples are dropped by name, the rest is trained on."""

import os
from collections import Counter

import pytest

from mmrnn.data import Collator, WebDataset
from mmrnn.io.records import files
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import LanguageModel, Stage
from mmrnn.training.reading.loader import StepLoader
from tests.data.readers.shards import dialogue, write_tar

SHARDS, RECORDS = 3, 4


def vanish(path):
    path.unlink()


def cut(path):
    os.truncate(path, 600)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("harm", "reason"),
    [(vanish, "a file of the data is not there any more"), (cut, "a file of the data was changed since the run began")],
)
def test_its_samples_are_dropped_by_name(tmp_path, harm, reason, workers):
    for number in range(SHARDS):
        members = [(f"{n}.json", dialogue("yes", "why?", id=f"{number}/{n}")) for n in range(RECORDS)]
        write_tar(tmp_path / f"s-{number}.tar", members)
    data = WebDataset(file=str(tmp_path / "s-{0..2}.tar"))
    assert len(data) == SHARDS * RECORDS
    harm(tmp_path / "s-1.tar")
    files._open_files.files.clear()
    stage = Stage(batch_size=SHARDS * RECORDS, grad_accum_steps=1)
    collate = Collator(DemoTokenizer(), RWKVChat(), {}, max_length=200)
    step = next(StepLoader(data, collate, LanguageModel(), stage, seed=0, workers=workers))
    assert sorted(step.ids) == [f"{number}/{n}" for number in (0, 2) for n in range(RECORDS)]
    assert Counter(sample.reason for sample in step.dropped) == {reason: RECORDS}
    assert sorted(sample.id for sample in step.dropped) == [f"#{RECORDS + n}" for n in range(RECORDS)]
    assert all("s-1.tar" in sample.detail for sample in step.dropped)
