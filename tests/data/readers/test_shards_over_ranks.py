"""Shards over ranks and workers, killed and resumed: every record exactly once an epoch, in every format."""

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

from mmrnn.data import InterleavedDocuments, LLaVAJson, Parquet, ShuffledOrder, WebDataset
from tests.data.readers.shards import dialogue, image_bytes, rank_batches, write_tar

RED = image_bytes("red")
SHARDS, WORLD, BATCH = 4, 2, 3
RECORDS = 21
"""Of a shard; the epoch, 84, is 14 steps."""


def rows(number):
    return [dialogue(id=f"{number}/{n}") for n in range(RECORDS)]


def webdataset(folder):
    for number in range(SHARDS):
        parts = (("png", RED), ("json", None))
        members = [(f"{n}.{kind}", part or row) for n, row in enumerate(rows(number)) for kind, part in parts]
        write_tar(folder / f"s-{number}.tar", members)
    return WebDataset(file=str(folder / f"s-{{0..{SHARDS - 1}}}.tar"))


def parquet(folder):
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number in range(SHARDS):
        columns = {key: pa.array([row[key] for row in rows(number)]) for key in ("id", "conversations")}
        columns["image"] = pa.array([{"bytes": RED, "path": None}] * RECORDS, cell)
        pq.write_table(pa.table(columns), folder / f"s-{number}.parquet", row_group_size=5)
    return Parquet(file=str(folder / "*.parquet"))


def lines(folder, make, reader):
    for number in range(SHARDS):
        content = "\n".join(json.dumps(make(row)) for row in rows(number))
        (folder / f"s-{number}.jsonl").write_text(content)
    return reader(file=str(folder / "*.jsonl"))


def document(row):
    return {"id": row["id"], "texts": [None, "text"], "images": ["x.png", None]}


DATA = {
    "webdataset": webdataset,
    "parquet": parquet,
    "jsonl": partial(lines, make=lambda row: {**row, "image": "x.png"}, reader=LLaVAJson),
    "interleaved": partial(lines, make=document, reader=InterleavedDocuments),
}


def loader(data, rank, step):
    order = ShuffledOrder(len(data), seed=3)
    sampler = rank_batches(order, batch_size=BATCH, start=step, stop=step + 100, rank=rank, ranks=WORLD)
    return DataLoader(data, batch_sampler=sampler, collate_fn=_ids, num_workers=2)


def _ids(samples):
    return [(sample.id, sample.images[0].key) for sample in samples]


def _rank(data, rank, step, steps, killed, answers):
    batches = iter(loader(data, rank, step))
    for number in range(step, steps):
        answers.put((number, next(batches)))
    answers.close()
    answers.join_thread()
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)


def run(data, step, steps, *, killed):
    """Samples of each step of both ranks; a killed run ends in the middle of reading ahead."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    ranks = [context.Process(target=_rank, args=(data, rank, step, steps, killed, answers)) for rank in range(WORLD)]
    for process in ranks:
        process.start()
    read = {}
    for _ in range(WORLD * (steps - step)):
        number, samples = answers.get(timeout=60)
        read.setdefault(number, []).extend(samples)
    for process in ranks:
        # Not by join: it waits for the workers too, which look after their parent every five seconds.
        deadline = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.exitcode == (-signal.SIGKILL if killed else 0)
    return read


@pytest.mark.parametrize("name", DATA)
def test_every_record_is_read_once_an_epoch(tmp_path, name):
    data = DATA[name](tmp_path)
    steps = SHARDS * RECORDS // (WORLD * BATCH)
    before = run(data, 0, 5, killed=True)
    again = DATA[name](tmp_path)
    after = run(again, 4, 2 * steps, killed=False)  # the last snapshot was that of step 4
    order = ShuffledOrder(len(data), seed=3)
    expected = [[data[order(n)].id for n in range(6 * step, 6 * step + 6)] for step in range(2 * steps)]
    read = {step: [id for id, _ in samples] for step, samples in {**before, **after}.items()}
    assert {step: sorted(ids) for step, ids in read.items()} == {n: sorted(ids) for n, ids in enumerate(expected)}
    assert sorted(before[4]) == sorted(after[4])
    every = Counter(f"{number}/{n}" for number in range(SHARDS) for n in range(RECORDS))
    for epoch in range(2):
        assert Counter(id for step in range(epoch * steps, (epoch + 1) * steps) for id in read[step]) == every
    assert data.left_out() == []
