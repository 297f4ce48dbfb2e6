"""Indices of record files: stored, mapped, stale, damaged, written by others."""

import json
import multiprocessing
import os
import pickle
import tracemalloc

import numpy as np
import pytest

from mmrnn.data import LLaVAJson
from mmrnn.data.readers import record_dataset
from mmrnn.io.errors import RecordError
from mmrnn.io.records import index as record_index

LONG_AGO = 1_000_000_000


def record(number, reply="a", **keys):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": reply}]
    return {"id": f"r{number}", "conversations": turns, **keys}


def write(path, records):
    lines = path.suffix == ".jsonl"
    path.write_text("\n".join(map(json.dumps, records)) if lines else json.dumps(records))
    os.utime(path, (LONG_AGO, LONG_AGO))
    return str(path)


@pytest.fixture
def scans(monkeypatch):
    """Stores the index of a file of any size, and lists the files that were read to make one."""
    monkeypatch.setattr(record_index, "MIN_STORED", 0)
    made = []
    original = record_dataset.RecordDataset._make_index

    def count(self, path, *rest):
        made.append(os.path.basename(path))
        return original(self, path, *rest)

    monkeypatch.setattr(record_dataset.RecordDataset, "_make_index", count)
    return made


def ids(data):
    return [sample.id for sample in data]


def indices(folder):
    return sorted(path for path in folder.iterdir() if path.suffix == ".index")


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
def test_a_stored_index_is_mapped_again(tmp_path, scans, name):
    file = write(tmp_path / name, [record(0), record(1, ""), record(2, "é" * 50), record(3, image="x.png")])
    first, second = LLaVAJson(file=file), LLaVAJson(file=file)
    for data in (first, second):
        assert ids(data) == ["r0", "r2", "r3"]
        assert data.skipped == [("r1", "a reply is empty (turn 2)")]
        assert data.left_out() == [("r1", "a reply is empty"), ("r3", "an image without a tag <image> is not shown")]
        assert isinstance(data._shards.shards[0].index.rows, np.memmap)
    assert scans == [name]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".lock"] == []


def test_a_changed_file_is_indexed_again(tmp_path, scans):
    file = write(tmp_path / "d.json", [record(0)])
    assert ids(LLaVAJson(file=file)) == ["r0"]
    write(tmp_path / "d.json", [record(5)])
    os.utime(file, (LONG_AGO, LONG_AGO + 1))
    assert ids(LLaVAJson(file=file)) == ["r5"]
    assert len(scans) == 2
    assert len(indices(tmp_path)) == 1


def test_what_decides_about_a_record_decides_about_its_index(tmp_path, scans):
    file = write(tmp_path / "d.json", [record(0), record(1, image="/x.png")])
    assert len(LLaVAJson(file=file)) == 1
    assert len(LLaVAJson(file=file, absolute_paths=True)) == 2
    assert len(LLaVAJson(file=file, max_pixels=7, holdout=0.0)) == 1
    assert len(scans) == 2


def test_missing_images_are_looked_for_each_time(tmp_path, scans):
    file = write(tmp_path / "d.json", [record(0), record(1, image="x.png")])
    assert len(LLaVAJson(file=file, verify=True)) == 1
    (tmp_path / "x.png").touch()
    assert len(LLaVAJson(file=file, verify=True)) == 2
    assert indices(tmp_path) == []


def test_small_and_fresh_files_get_no_index(tmp_path, monkeypatch):
    file = write(tmp_path / "small.json", [record(0)])
    assert len(LLaVAJson(file=file)) == 1
    monkeypatch.setattr(record_index, "MIN_STORED", 0)
    os.utime(file)
    assert len(LLaVAJson(file=file)) == 1
    assert indices(tmp_path) == []


HEADER = record_index.HEADER


@pytest.mark.parametrize(
    "damage",
    [
        lambda content, line: b"",
        lambda content, line: content[:-1],
        lambda content, line: content + b"x",
        lambda content, line: content.replace(HEADER.encode(), HEADER.replace("1", "9").encode()),
        lambda content, line: b"\x80\x04" + content,
        lambda content, line: b"[" * 100_000,
        lambda content, line: content[: len(line) + 8] + b"\xff" * 8 + content[len(line) + 16 :],
        lambda content, line: content[: len(line) + 16] + b"\xff" * 4 + content[len(line) + 20 :],
        lambda content, line: content[: -len(b"{}\n") * 3] + b"x" * 9,
        lambda content, line: json.dumps([HEADER, None, "1", {}]).encode() + b"\n",
        lambda content, line: line.replace(b", 2, ", b", -2, ") + content[len(line) :],
    ],
)
def test_a_damaged_index_is_made_again(tmp_path, scans, damage):
    file = write(tmp_path / "d.json", [record(0), record(1, ""), record(2)])
    assert ids(LLaVAJson(file=file)) == ["r0", "r2"]
    [path] = indices(tmp_path)
    content = path.read_bytes()
    path.write_bytes(damage(content, content[: content.index(b"\n") + 1]))
    data = LLaVAJson(file=file)
    assert ids(data) == ["r0", "r2"]
    assert data.left_out() == [("r1", "a reply is empty")]
    assert len(scans) == 2
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, scans, caplog):
    file = write(tmp_path / "d.json", [record(0)])
    blocked = tmp_path / "no folder"
    blocked.touch()
    assert ids(LLaVAJson(file=file, index_folder=str(blocked / "x"))) == ["r0"]
    assert "set data.index_folder" in caplog.text
    folder = tmp_path / "indices"
    assert ids(LLaVAJson(file=file, index_folder=str(folder))) == ["r0"]
    assert len(indices(folder)) == 1
    assert indices(tmp_path) == []


def test_workers_map_the_same_index(tmp_path, scans):
    file = write(tmp_path / "d.json", [record(number) for number in range(2000)])
    data = LLaVAJson(file=file)
    assert len(data) == 2000
    sent = pickle.dumps(data)
    assert len(sent) < 5000
    received = pickle.loads(sent)
    assert received[1999].id == "r1999"
    assert isinstance(received._shards.shards[0].index.rows, np.memmap)
    assert len(scans) == 1


def test_a_record_costs_twenty_bytes(tmp_path, scans):
    file = write(tmp_path / "d.jsonl", [record(number) for number in range(4_000)])
    assert len(LLaVAJson(file=file)) == 4_000
    assert indices(tmp_path)[0].stat().st_size == pytest.approx(20 * 4_000, abs=200)
    tracemalloc.start()
    data = LLaVAJson(file=file)
    assert data[3_999].id == "r3999"
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000, "the records themselves are not held"


def test_a_file_that_changes_during_the_run_is_named(tmp_path):
    file = write(tmp_path / "d.jsonl", [record(0), record(1)])
    data = LLaVAJson(file=file)
    assert len(data) == 2
    os.utime(file, (LONG_AGO, LONG_AGO + 9))
    with pytest.raises(RecordError, match=r"was changed since the run began \(.*d\.jsonl\)") as raised:
        data[0]
    assert raised.value.reason == "a file of the data was changed since the run began"
    os.unlink(file)
    with pytest.raises(RecordError, match=r"is not there any more \(.*d\.jsonl\)"):
        data[1]


def test_shards_are_one_data_set(tmp_path, scans):
    for number in range(3):
        shard = [record(10 * number + n) for n in range(4)]
        del shard[1]["id"]
        write(tmp_path / f"part-{number:02d}.jsonl", [*shard, {"id": f"bad{number}"}])
    data = LLaVAJson(file=str(tmp_path / "part-{00..03}.jsonl"))
    assert len(data) == 12
    assert ids(data)[4:8] == ["r10", "part-01.jsonl#1", "r12", "r13"]
    assert [id for id, _ in data.left_out()] == ["part-03.jsonl", "bad0", "bad1", "bad2"]
    assert data.left_out()[0][1] == "a shard cannot be read"
    assert "does not exist" in data.skipped[0][1]
    assert ids(LLaVAJson(file=str(tmp_path / "*.jsonl"))) == ids(data)
    assert ids(LLaVAJson(file=str(tmp_path / "part-{01,00}.jsonl")))[0] == "r10"
    assert sorted(scans) == ["part-00.jsonl", "part-01.jsonl", "part-02.jsonl"]


def test_what_is_held_out_is_not_trained_on(tmp_path):
    for number in range(2):
        write(tmp_path / f"{number}.json", [record(100 * number + n) for n in range(100)])
    knobs = {"file": str(tmp_path / "*.json"), "holdout": 0.3}
    train, every = LLaVAJson(**knobs), LLaVAJson(**knobs, split="holdout")
    assert sorted(ids(train) + ids(every)) == sorted(f"r{n}" for n in range(200))
    assert 30 < len(every) < 90
    rest = train.held_out(10)["records"]
    assert ids(rest) == ids(every)[:10]
    assert len(train) == 200 - len(every)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("*.jsonl", "matches no file; set it to the JSON file of the records"),
        ("{9..1}.jsonl", "runs backwards; write the lower number first"),
        ("{0..9999999}.jsonl", "names more than 1,000,000 files"),
        ("{a,b}.jsonl", r"holds no valid record; the first \(a\.jsonl\): a shard cannot be read"),
    ],
)
def test_a_pattern_without_records(tmp_path, pattern, message):
    with pytest.raises(ValueError, match=message):
        len(LLaVAJson(file=str(tmp_path / pattern)))


def test_processes_that_begin_together_share_the_work(tmp_path, scans):
    """Each shard is indexed by one of them, which the others wait for."""
    for number in range(6):
        write(tmp_path / f"{number}.jsonl", [record(n) for n in range(100 * number, 100 * number + 100)])
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def begin():
        data = LLaVAJson(file=str(tmp_path / "*.jsonl"))
        answers.put((ids(data), list(scans)))

    processes = [context.Process(target=begin) for _ in range(3)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert all(read == [f"r{n}" for n in range(600)] for read, _ in found)
    assert sorted(name for _, made in found for name in made) == [f"{n}.jsonl" for n in range(6)]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".index"] * 6 + [".jsonl"] * 6
