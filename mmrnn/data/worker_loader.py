"""Loader of a rank: its worker processes outlive the signals that the rank handles."""

from collections.abc import Iterator
from contextlib import nullcontext
from multiprocessing import get_all_start_methods, get_start_method
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mmrnn.io.signals import blocked_signals, outlive_signals


def start_loader(dataset: Dataset[Any], *, workers: int, **options: Any) -> Iterator[Any]:
    """Start an iteration over torch's `DataLoader`.

    Args:
        dataset: whose items are read.
        workers: processes that read; 0: this one.
        options: of `DataLoader`.
    """
    # Asked for with workers alone: the answer fixes the start method of this program.
    method = _start_method() if workers else None
    loader = DataLoader(
        dataset,
        num_workers=workers,
        multiprocessing_context=method,
        worker_init_fn=outlive_signals,
        # A generator of its own: the loader would draw from the global one, and a resumed run would differ.
        generator=torch.Generator(),
        **options,
    )
    with blocked_signals(method) if method else nullcontext():
        return iter(loader)


def _start_method() -> str:
    """Start method of worker processes; joblib's processes have one of their own, with which no others can start."""
    methods = get_all_start_methods()  # the first one is the platform's default
    return method if (method := get_start_method()) in methods else methods[0]
