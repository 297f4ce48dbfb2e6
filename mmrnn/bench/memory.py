"""Peak memory: of a function in a process of its own (Linux only), and of what runs on a device."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from mmrnn.config.device import KINDS, device_module
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


def start_peak(device: torch.device) -> int | None:
    """Let the peak begin anew, and return the bytes in use now: of the device where torch counts them, else resident.

    None: neither is known (a system other than Linux).
    """
    if KINDS[device.type].memory_figures:
        device_module(device).reset_peak_memory_stats(device)
        return device_module(device).memory_allocated(device)
    if not can_reset_peak():
        return None
    reset_peak()
    return resident_bytes()


def rise_of_peak(before: int | None, device: torch.device) -> float | None:
    """Return by how many megabytes the peak has risen since `start_peak` returned `before`."""
    if before is None:
        return None
    counted = KINDS[device.type].memory_figures
    return ((device_module(device).max_memory_allocated(device) if counted else peak_resident_bytes()) - before) / 1e6
