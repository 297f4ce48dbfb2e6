"""A folder belongs to one process at a time; the lock ends with the process, however that ends."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from mmrnn.io import lock
from mmrnn.io.lock import LOCK, FolderInUseError, lock_folder, lock_holder

HOLD = """
import sys, pathlib
from mmrnn.io.lock import lock_folder
with lock_folder(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_second_process_is_told_who_holds_the_folder(tmp_path, other):
    holder = f"process {other.pid} on {socket.gethostname()} since "
    with (
        pytest.raises(FolderInUseError, match=f"{tmp_path} is in use by {holder}.*; wait for it, stop it"),
        lock_folder(tmp_path),
    ):
        pass
    assert lock_holder(tmp_path).startswith(holder)
    other.communicate("")
    assert lock_holder(tmp_path) is None
    with lock_folder(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_gone(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / LOCK).is_file()
    assert lock_holder(tmp_path) is None
    with lock_folder(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_forked_processes_do_not_keep_it(tmp_path):
    """Workers of a loader outlive a killed training by some seconds."""
    read, write = os.pipe()
    with lock_folder(tmp_path):
        child = os.fork()
        if not child:
            os.read(read, 1)
            os._exit(0)
    check = [sys.executable, "-c", HOLD, str(tmp_path)]
    held = subprocess.run(check, input="", capture_output=True, text=True, check=True)
    assert held.stdout == "held\n"
    os.write(write, b"x")
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)


def test_a_folder_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "fcntl", None)
    with lock_folder(tmp_path / "new"):
        assert list((tmp_path / "new").iterdir()) == []
    assert "cannot be locked here" in caplog.text
    assert lock_holder(tmp_path / "new") is None
