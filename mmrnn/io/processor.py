"""Name of the processor."""

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """Return the name of the processor as its vendor writes it, where the system tells; else its architecture."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
