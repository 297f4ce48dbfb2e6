"""Shards in the network read one after the other, from copies."""

import json
import os

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from torch.utils.data import DataLoader

from mmrnn.data import LLaVAJson, Mixture, Parquet, WebDataset
from mmrnn.io.errors import RecordError
from mmrnn.io.records import files, shard_copies
from mmrnn.io.records import index as record_index
from tests.data.readers.shards import dialogue, image_bytes, rank_batches, write_tar
from tests.data.readers.test_parquet import many

RED = image_bytes("red")
SHARDS, RECORDS = 4, 9


@pytest.fixture
def remote(tmp_path):
    for number in range(SHARDS):
        members = [(f"{number}-{n}.{kind}", x) for n in range(RECORDS) for kind, x in (("png", RED), ("txt", f"{n}"))]
        write_tar(tmp_path / "s.tar", members)
        MemoryFileSystem().pipe(f"/seq/s-{number}.tar", (tmp_path / "s.tar").read_bytes())
    return {"file": "memory://seq/s-{0..3}.tar", "sequential": True, "cache_folder": str(tmp_path / "copies")}


@pytest.fixture
def copied(monkeypatch):
    made = []
    original = shard_copies._copy
    monkeypatch.setattr(shard_copies, "_copy", lambda url, new: made.append(url[-7:]) or original(url, new))
    return made


def ids(data, numbers, seed=5):
    order = data.order(seed)
    return [data[order(n)].id for n in numbers]


def test_a_shard_is_copied_once(remote, copied, monkeypatch):
    monkeypatch.setattr(record_index, "MIN_STORED", 0)
    data = WebDataset(**remote, shuffle_buffer=6)
    total = SHARDS * RECORDS
    read = ids(data, range(2 * total))
    assert sorted(read[:total]) == sorted(read[total:]) == sorted(sample.id for sample in data)
    assert len(set(read[:total])) == total
    assert sorted(copied) == [f"s-{number}.tar" for number in range(SHARDS)]
    assert all(data[n].images[0].open().size == (4, 3) for n in range(total))
    assert sorted(ids(WebDataset(**remote), range(total))) == sorted(read[:total])
    assert len(copied) == SHARDS
    assert len([name for name in os.listdir(remote["cache_folder"]) if name.endswith(".index")]) == SHARDS


def test_the_oldest_copies_are_removed(remote, copied):
    """With room for two copies, an epoch copies each shard once, and holds two."""
    size = MemoryFileSystem().info("/seq/s-0.tar")["size"]
    data = WebDataset(**remote, shuffle_buffer=RECORDS, cache_gib=2.5 * size / 2**30)
    assert len(data) == SHARDS * RECORDS
    copied.clear()
    for n in range(SHARDS * RECORDS):
        files._open_files.files.clear()
        assert data[data.order(5)(n)].images[0].open().size == (4, 3)
        assert len([name for name in os.listdir(remote["cache_folder"]) if name[:1] != "."]) <= 2
    assert len(copied) <= SHARDS


def test_ranks_and_workers_read_every_record_once_and_resume(remote):
    data = WebDataset(**remote, shuffle_buffer=10)
    total = SHARDS * RECORDS

    def batches(rank, step):
        sampler = rank_batches(data.order(5), batch_size=3, start=step, stop=2 * total // 6, rank=rank, ranks=2)
        return iter(DataLoader(data, batch_sampler=sampler, num_workers=2, collate_fn=_ids))

    read = {}
    for rank in range(2):
        killed = batches(rank, 0)
        for step in range(3):
            read[rank, step] = next(killed)
        del killed
        read |= {(rank, 2 + n): batch for n, batch in enumerate(batches(rank, 2))}
    expected = ids(data, range(2 * total))
    steps = [sorted(read[0, step] + read[1, step]) for step in range(2 * total // 6)]
    assert steps == [sorted(expected[6 * step : 6 * step + 6]) for step in range(len(steps))]
    for epoch in range(2):
        assert len({id for step in steps[epoch * 6 : epoch * 6 + 6] for id in step}) == total


def _ids(samples):
    return [sample.id for sample in samples]


def test_a_shard_that_goes_or_is_cut_is_named(remote, tmp_path):
    data = WebDataset(**remote)
    assert len(data) == SHARDS * RECORDS
    files._open_files.files.clear()
    for copy in (tmp_path / "copies").iterdir():
        copy.unlink()
    MemoryFileSystem().rm("/seq/s-0.tar")
    with pytest.raises(RecordError, match=r"is not there any more \(memory://seq/s-0\.tar\)"):
        data[0]
    whole = MemoryFileSystem().cat("/seq/s-1.tar")
    MemoryFileSystem().pipe("/seq/s-1.tar", whole[:700])
    with pytest.raises(RecordError, match=r"was cut \(memory://seq/s-1\.tar\)"):
        data[RECORDS]
    assert data[2 * RECORDS].id == "s-2.tar/2-0"


def test_copies_need_a_folder(remote):
    del remote["cache_folder"]
    with pytest.raises(ValueError, match=r"data\.cache_folder is not set; sequential=true copies"):
        len(WebDataset(**remote))


def test_local_row_groups_are_read_one_after_the_other(tmp_path):
    for name in "abc":
        many(tmp_path / f"{name}.parquet")
    knobs = {"file": str(tmp_path / "*.parquet"), "holdout": 0.3}
    data = Parquet(**knobs, sequential=True, shuffle_buffer=4)
    read = ids(data, range(len(data)))
    assert len({id[0] for id in read[:4]}) <= 2
    assert sorted(read) == sorted(sample.id for sample in Parquet(**knobs))
    assert data.held_out(5)["records"].order(0) is None


def test_a_mixture_reads_its_parts_in_their_orders(remote, tmp_path):
    records = [dialogue(id=str(n), question="q") for n in range(6)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, records)))
    lines = LLaVAJson(file=str(tmp_path / "d.jsonl"))
    assert Mixture(parts={"a": lines}).order(5) is None
    shards = WebDataset(**remote, shuffle_buffer=6)
    mix = Mixture(parts={"lines": lines, "shards": shards})
    read = ids(mix, range(len(mix)))
    assert sorted(read) == sorted(mix[n].id for n in range(len(mix)))
    assert [id.removeprefix("shards/") for id in read if id[0] == "s"] == ids(shards, range(len(shards)))
