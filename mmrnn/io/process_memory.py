"""Resident memory of this process, as the kernel reports it."""

import sys
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MACHINE, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def resident_bytes() -> int:
    """Return the resident memory of this process now; 0: not known (Linux only)."""
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> int:
    """Return the largest resident memory that this process had, or had since `reset_peak`; 0: not known."""
    # `ru_maxrss` begins with the peak of the process that started this one.
    return _status_bytes("VmHWM") or _max_resident_bytes()


def available_bytes() -> int | None:
    """Return the memory that a program can still take, of the machine or of its container; None: not known.

    On systems other than Linux it is not known.
    """
    try:
        lines = MACHINE.read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    try:
        limit, used = ((CONTAINER / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" or free is None else min(free, int(limit) - int(used))


def can_reset_peak() -> bool:
    """True on Linux, where `reset_peak` works."""
    return RESET.exists()


def reset_peak() -> None:
    """Reset the peak to the memory that is resident now.

    Raises:
        OSError: the system cannot do it.
    """
    RESET.write_text("5")


def _status_bytes(field: str) -> int:
    """Figure of /proc/self/status; 0 where the system has none."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def _max_resident_bytes() -> int:
    """Figure of getrusage; 0 where the system has none."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return 0
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
