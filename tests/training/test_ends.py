"""Signals that end a run, and a worker process whose parent ends."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from mmrnn.training import ends
from mmrnn.training.ends import StoppedRun, StopSignals

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def handlers():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield before
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted(number):
    with StopSignals() as signals:
        signals.check()
        os.kill(os.getpid(), number)
        assert signals.received == number
        with pytest.raises(StoppedRun, match=f"stopped by {number.name}") as stop:
            signals.check()
    assert stop.value.code == (130 if number == signal.SIGINT else 143)
    assert isinstance(stop.value, KeyboardInterrupt)


def test_an_iteration_ends_at_its_next_item():
    shown = []

    def track(items):
        for item in items:
            shown.append(item)
            yield item

    with StopSignals() as signals:
        items = signals.checked(track)(range(5))
        assert [next(items), next(items), next(items)] == [0, 1, 2]
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(StoppedRun):
            next(items)
    assert shown == [0, 1, 2, 3]


def test_a_thread_handles_no_signals(handlers):
    def work():
        with StopSignals():
            found.extend(signal.getsignal(number) for number in SIGNALS)

    found = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == handlers


SECOND = """
import os, runpy, signal, sys
try:
    with runpy.run_path(sys.argv[1])["StopSignals"]():
        os.kill(os.getpid(), signal.SIGINT)
        print("continues", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        print("too long", flush=True)
finally:
    print("cleans up", flush=True)
"""


def test_a_second_signal_ends_the_process_at_once():
    ended = subprocess.run(
        [sys.executable, "-c", SECOND, ends.__file__], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 143
    assert ended.stdout == "continues\n"


ORPHAN = """
import multiprocessing, os, runpy, sys, time
path, start, note = sys.argv[1:]

def work(connection):
    ends = runpy.run_path(path)
    found = [ends["is_orphan"]()]
    connection.send("started")
    with ends["StopSignals"]() as signals:
        end = time.monotonic() + 20
        while not signals.received and time.monotonic() < end:
            time.sleep(0.01)
        found.append(int(signals.received))
    with open(note + ".part", "w") as file:
        file.write(str(found))
    os.rename(note + ".part", note)
    with ends["exit_as_orphan"]():
        open(note, "w").close()

if __name__ == "__main__":
    here, there = multiprocessing.Pipe()
    multiprocessing.get_context(start).Process(target=work, args=(there,)).start()
    here.recv()
    os._exit(0)
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_end_of_the_parent_is_a_sigterm_and_no_other_job_starts(tmp_path, start):
    script, note = tmp_path / "parent.py", tmp_path / "note"
    script.write_text(ORPHAN)
    # Its output ends when the last process that has it is gone.
    subprocess.run([sys.executable, script, ends.__file__, start, note], capture_output=True, timeout=60, check=True)
    assert note.read_text() == f"[False, {int(signal.SIGTERM)}]"


IDLE = """
import multiprocessing, os, runpy, sys, time
path, start = sys.argv[1:]

def work(connection):
    exit_as_orphan = runpy.run_path(path)["exit_as_orphan"]
    for job in range(2):
        with exit_as_orphan():
            connection.send(f"job {job} is done")
    time.sleep(60)

if __name__ == "__main__":
    here, there = multiprocessing.Pipe()
    multiprocessing.get_context(start).Process(target=work, args=(there,)).start()
    print(here.recv(), here.recv(), flush=True)
    time.sleep(0.5)
    os._exit(0)
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_worker_without_a_job_ends_with_its_parent(tmp_path, start):
    script = tmp_path / "parent.py"
    script.write_text(IDLE)
    ended = subprocess.run([sys.executable, script, ends.__file__, start], capture_output=True, timeout=40, check=True)
    assert ended.stdout == b"job 0 is done job 1 is done\n"


def test_a_process_without_a_parent_of_its_own_kind_is_no_orphan(monkeypatch):
    """One that a shell or a scheduler has started, and the child of a fork server."""
    assert not ends.is_orphan()
    monkeypatch.setattr(ends, "parent_process", lambda: SimpleNamespace(pid=1))
    monkeypatch.setattr(os, "getppid", lambda: 2)
    assert ends.is_orphan()
    monkeypatch.setattr(ends, "get_start_method", lambda allow_none: "forkserver")
    assert not ends.is_orphan()
