"""Memory of a device in bytes: that of an accelerator where torch counts it, else that of this process."""

from contextlib import suppress

import torch

from mmrnn.config.device import KINDS, device_module
from mmrnn.io.process_memory import available_bytes, can_reset_peak, peak_resident_bytes, reset_peak, resident_bytes


def used_memory(device: torch.device) -> int:
    """Return the memory that tensors take now, or the resident memory of the process; 0: not known."""
    return device_module(device).memory_allocated(device) if _is_counted(device) else resident_bytes()


def peak_memory(device: torch.device) -> int:
    """Return the largest used memory so far, or since `reset_peak_memory`; 0: not known."""
    return device_module(device).max_memory_allocated(device) if _is_counted(device) else peak_resident_bytes()


def reset_peak_memory(device: torch.device) -> bool:
    """Set the peak to the memory that is used now; return False where the system cannot do it."""
    if _is_counted(device):
        device_module(device).reset_peak_memory_stats(device)
        return True
    if can_reset_peak():
        with suppress(OSError):
            reset_peak()
            return True
    return False


def free_memory(device: torch.device) -> int | None:
    """Return the memory that can still be taken; None: not known."""
    return device_module(device).mem_get_info(device)[0] if _is_counted(device) else available_bytes()


def _is_counted(device: torch.device) -> bool:
    return KINDS[device.type].memory_figures
