"""Memory that a function takes: of a device, or in a process of its own; in MB of 1e6 bytes."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import torch

from mmrnn.config.device_memory import peak_memory, reset_peak_memory, used_memory
from mmrnn.io.process_memory import can_reset_peak

T = TypeVar("T")


def memory_rise(run: Callable[[], T], device: torch.device) -> tuple[T, float | None]:
    """Return the result of a function, and by how many MB it raises the peak above what is used; None: not known."""
    before = used_memory(device) if reset_peak_memory(device) else None
    result = run()
    return result, None if before is None else (peak_memory(device) - before) / 1e6


def peak_megabytes(run: Callable[..., object], small: tuple, full: tuple) -> float | None:
    """Return by how many MB `run(*full)` raises the peak of a process after `run(*small)`; None: not on Linux."""
    if not can_reset_peak():
        return None
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, run, small, full).result()


def _measure(run: Callable[..., object], small: tuple, full: tuple) -> float | None:
    torch.set_num_threads(1)
    run(*small)
    return memory_rise(lambda: run(*full), torch.device("cpu"))[1]
