"""Signals that ask a process to end, and worker processes that outlive them."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")
"""Signals of schedulers (Slurm sends SIGTERM, or what `--signal` names) and of a terminal."""


def stop_signals() -> list[int]:
    """Return the numbers of the signals that this system has."""
    return [signal.Signals[name] for name in NAMES if name in signal.Signals.__members__]


@contextmanager
def blocked_signals(start_method: str) -> Iterator[None]:
    """Context in which worker processes are started, so that no signal ends them before `outlive_signals`.

    Child processes inherit what is blocked. Those of a fork server that runs already inherit from that server. Nothing
    is blocked where senders are not known (macOS), or there are no signals (Windows).

    Args:
        start_method: of the worker processes.
    """
    if not hasattr(signal, "sigwaitinfo"):
        yield
        return
    if start_method != "fork":
        from multiprocessing.resource_tracker import ensure_running

        # Else the first queue of a worker starts it, after which Python 3.11 unblocks the signals.
        ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive_signals(_: int = 0) -> None:
    """Let a worker process of a loader outlive the signals that its rank handles; its `worker_init_fn`.

    A terminal and Slurm send them to every process of a job. SIGTERM ends a worker where its rank has sent it, as the
    interpreter does when it exits; the end of the rank does, too.
    """
    for number in stop_signals():
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    # Where senders are not known (macOS), torch's handler stays, and any SIGTERM ends the worker.
    if hasattr(signal, "sigwaitinfo") and (rank := parent_process()) is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_obey, args=(rank,), name="signals of the rank", daemon=True).start()


def _obey(rank: BaseProcess) -> None:
    """End this process when the rank sends SIGTERM, or has ended.

    torch's own check takes `os.getppid()` for the rank: a fork server, or where the rank ended before this process was
    ready, whoever inherits its orphans.
    """
    sender = None
    while sender != rank.pid and rank.is_alive():
        found = signal.sigtimedwait([signal.SIGTERM], 2.0)
        sender = found.si_pid if found else None
    os._exit(0)
