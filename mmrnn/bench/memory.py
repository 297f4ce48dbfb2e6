"""Peak memory of a function, measured in a process of its own (Linux only)."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_megabytes(run: Callable[..., object], small: tuple, full: tuple) -> float | None:
    """Return by how many megabytes `run(*full)` raises the peak, after a warm-up `run(*small)`; None: not on Linux."""
    if not RESET.exists():
        return None
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, run, small, full).result()


def _measure(run: Callable[..., object], small: tuple, full: tuple) -> float:
    import torch

    torch.set_num_threads(1)
    run(*small)
    RESET.write_text("5")  # resets VmHWM
    start = _megabytes("VmRSS")
    run(*full)
    return _megabytes("VmHWM") - start


def _megabytes(field: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
