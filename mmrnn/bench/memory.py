"""Peak memory of a function, measured in a process of its own (Linux only)."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from mmrnn.io.process_memory import can_reset_peak, peak_resident_bytes, reset_peak, resident_bytes


def peak_megabytes(run: Callable[..., object], small: tuple, full: tuple) -> float | None:
    """Return by how many megabytes `run(*full)` raises the peak, after a warm-up `run(*small)`; None: not on Linux."""
    if not can_reset_peak():
        return None
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, run, small, full).result()


def _measure(run: Callable[..., object], small: tuple, full: tuple) -> float:
    torch.set_num_threads(1)
    run(*small)
    reset_peak()
    start = resident_bytes()
    run(*full)
    return (peak_resident_bytes() - start) / 2**20
