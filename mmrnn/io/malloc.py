"""glibc malloc tuning: do not return freed pages to the kernel."""

import ctypes

TRIM, MMAP = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's mallopt."""


def tune_malloc() -> bool:
    """Let this process's allocator keep freed memory.

    Every step of training, and of decoding many rows, takes and frees the same few hundred megabytes on a CPU. glibc
    returns large pieces at once, and the kernel hands them out again page by page, each one zeroed: a third of the time
    of a small model's step of training, a fifth of a step of 32 rows.

    Returns:
        True where there is such an allocator; other C libraries keep what they have.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(MMAP, 1 << 30) and mallopt(TRIM, 2**31 - 1))
