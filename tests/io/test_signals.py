"""Worker processes outlive the signals of their rank, from their start on."""

import signal
import subprocess
import sys

import pytest

from mmrnn.io import signals

needs_senders = pytest.mark.skipif(
    not hasattr(signal, "sigwaitinfo"), reason="the senders of signals are not known on this system"
)

WORKER = """
import multiprocessing, os, runpy, subprocess, sys, time
path, start, *numbers = sys.argv[1:]
signals = runpy.run_path(path)

def work(connection):
    connection.send("begun")
    time.sleep(0.5)
    signals["outlive_signals"]()
    for number in numbers:
        os.kill(os.getpid(), int(number))
    time.sleep(0.2)
    connection.send("alive")
    time.sleep(60)

if __name__ == "__main__":
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context(start).Process(target=work, args=(there,), daemon=True)
    with signals["blocked_signals"](start):
        worker.start()
    print(here.recv(), flush=True)
    for number in numbers:
        # Of a process of its own: a SIGTERM of the rank ends the worker.
        subprocess.run(["kill", "-" + number, str(worker.pid)], check=True)
    print(here.recv(), flush=True)
    worker.terminate()
    worker.join(20)
    print(worker.exitcode, flush=True)
    worker.kill()
"""


@needs_senders
@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_a_worker_outlives_the_signals_of_its_rank_and_ends_when_that_ends_it(tmp_path, start):
    script = tmp_path / "rank.py"
    script.write_text(WORKER)
    command = [sys.executable, script, signals.__file__, start, *(str(int(one)) for one in signals.stop_signals())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.split() == ["begun", "alive", "0"], ended.stderr


LATE = """
import multiprocessing, os, runpy, sys, time
path, start = sys.argv[1:]

def work(connection):
    connection.send("begun")
    connection.recv()
    time.sleep(0.5)
    runpy.run_path(path)["outlive_signals"]()
    time.sleep(60)

if __name__ == "__main__":
    here, there = multiprocessing.Pipe()
    multiprocessing.get_context(start).Process(target=work, args=(there,), daemon=True).start()
    here.recv()
    here.send("the rank ends")
    os._exit(0)
"""


@needs_senders
@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_a_worker_that_is_ready_after_the_end_of_its_rank_ends(tmp_path, start):
    script = tmp_path / "rank.py"
    script.write_text(LATE)
    # The output ends when the last process that has it is gone.
    subprocess.run([sys.executable, script, signals.__file__, start], capture_output=True, timeout=40, check=True)


@needs_senders
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_rank_handles_them_again_when_its_workers_have_started(start):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with signals.blocked_signals(start):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before | {*signals.stop_signals()}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
