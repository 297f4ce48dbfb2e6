"""Files are replaced whole or not at all; a full disk is named with bytes, killed writers leave nothing for long."""

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import PosixPath

import pytest
import torch
from safetensors import SafetensorError

from mmrnn.io import disk, jsonl, shards
from mmrnn.io.atomic import replace_file
from mmrnn.io.disk import DiskFullError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


FULL = (
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
)


@pytest.mark.parametrize("fault", FULL, ids=["disk", "quota", "safetensors"])
def test_a_full_disk_is_named_with_bytes(tmp_path, fault, monkeypatch):
    def write(path):
        path.write_bytes(b"half")
        raise fault

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: Usage(3000))
    message = f"no space left for {tmp_path}: 5,000 bytes are to be written, 3,004 bytes are free"
    with pytest.raises(DiskFullError, match=re.escape(message)) as raised:
        replace_file(tmp_path / "a", write, 5000)
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.__cause__ is fault
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


class Usage:
    def __init__(self, free):
        self.free = free


def test_torch_does_not_say_that_the_disk_is_full(tmp_path, monkeypatch):
    """Its writer only finds a wrong position; on a disk without space that is the reason."""

    def write(path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    with pytest.raises(RuntimeError, match="unexpected pos"):
        replace_file(tmp_path / "a", write)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: Usage(0))
    with pytest.raises(DiskFullError, match=r": 0 bytes are free"):
        replace_file(tmp_path / "a", write)


def test_other_faults_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError):
        replace_file(tmp_path / "a", lambda path: 1 / 0)
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "a", lambda path: tmp_path.write_text(""))
    assert names(tmp_path) == []


def test_a_checkpoint_on_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    shards.write(tmp_path, {"a": torch.ones(3)}, {"config.yaml": "a: 1"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_, **__):
        raise FULL[2]

    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(DiskFullError, match="4,000 bytes are to be written"):
        shards.write(tmp_path, {"a": torch.ones(1000)}, {})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_log_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: Usage(0))
    with pytest.raises(DiskFullError, match="10 bytes are to be written, 0 bytes are free"):
        jsonl.append(PathWithoutSpace(tmp_path / "log.jsonl"), {"a": 10})


def test_half_a_line_is_removed(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    jsonl.append(path, {"a": 1})

    class Half(PosixPath):
        def open(self, *mode):
            with super().open(*mode) as file:
                file.write('{"a"')
            raise FULL[0]

    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: Usage(3))
    with pytest.raises(DiskFullError, match="18 bytes are to be written, 3 bytes are free"):
        jsonl.append(Half(path), {"a": 2}, {"a": 3})
    jsonl.append(path, {"a": 4})
    assert jsonl.records(path) == [{"a": 1}, {"a": 4}]


class PathWithoutSpace(PosixPath):
    """A file that cannot be written."""

    def open(self, *_):
        raise FULL[0]


def test_files_of_killed_writers_are_removed(tmp_path):
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = int(process.stdout)
    host = socket.gethostname()
    left = (f".a.{host}.{dead}", f".a.{host}.{10**30}", ".a.other-host.1")
    others = (f".a.{host}.{os.getppid()}", f".b.{host}.{dead}", f".a.b.{host}.{dead}", f".a.other-host.{dead}")
    others += (".a.tmp", f".a.{host}.²", f".a.{dead}", f"a.{host}.{dead}")
    for name in (*left, *others):
        (tmp_path / name).write_text("half")
    os.utime(tmp_path / left[-1], (0, 0))
    replace_file(tmp_path / "a", lambda path: path.write_text("new"))
    assert names(tmp_path) == sorted(("a", *others))


def test_the_whole_lines_of_a_log_are_read(tmp_path):
    path = tmp_path / "log.jsonl"
    assert jsonl.records(path) == []
    for step in (1, 2):
        jsonl.append(path, {"step": step})
    with path.open("a") as file:
        file.write('{"step": 3')
    assert jsonl.records(path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"step": 1}\n{"st\n{"step": 3}\n', "line 2 is not JSON"),
        (b"[1]\n", "line 1 is no JSON object"),
        (b'{"a": 1}\n\xff\xfe\n', "byte 9 is no text"),
        (b"[" * 100_000 + b"\n", "line 1 is not JSON"),
        (b"\0" * 20 + b"\n", "line 1 is not JSON"),
    ],
)
def test_a_damaged_log_is_named(tmp_path, content, fault):
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged: {fault}.*; delete"):
        jsonl.records(path)
