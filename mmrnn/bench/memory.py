"""What a piece of work adds to the peak of the memory: measured in a process of its own, on Linux."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(run: Callable[..., object], small: tuple, whole: tuple) -> float | None:
    """Megabytes that `run(*whole)` adds once `run(*small)` has loaded all that it needs; None where nobody can tell."""
    if not RESET.exists():
        return None
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_added, run, small, whole).result()


def _added(run: Callable[..., object], small: tuple, whole: tuple) -> float:
    import torch

    torch.set_num_threads(1)
    run(*small)
    RESET.write_text("5")
    start = _megabytes("VmRSS")
    run(*whole)
    return _megabytes("VmHWM") - start


def _megabytes(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024
