"""State of the random generators of a process: Python's and torch's, of the CPU and of all accelerators."""

import random
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from mmrnn.config.device import accelerator, device_count, device_module


def random_state() -> dict[str, Any]:
    """Return the state as plain data for JSON."""
    version, numbers, gauss = random.getstate()
    state = {"python": [version, list(numbers), gauss], "cpu": _to_text(torch.get_rng_state())}
    if kind := accelerator():
        state[kind] = [_to_text(device_module(kind).get_rng_state(index)) for index in range(device_count(kind))]
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore a `random_state`, of as many devices of its kind as there are here.

    Raises:
        ValueError, TypeError, KeyError, RuntimeError: it is damaged.
    """
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(_to_tensor(state["cpu"]))
    if kind := accelerator():
        for index, text in enumerate(state.get(kind, [])[: device_count(kind)]):
            device_module(kind).set_rng_state(_to_tensor(text), index)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Context after which the random generators are as before."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def restore_random(states: Sequence[dict[str, Any]], rank: int, size: int, *facts: object) -> None:
    """Restore the state of a rank; on another number of ranks than before, each is seeded anew.

    Args:
        states: `random_state` of every rank of the run that is resumed.
        rank: of this process.
        size: number of processes.
        facts: that say where the run is, and give another position other seeds.

    Raises:
        ValueError, TypeError, KeyError, RuntimeError: a state is damaged.
    """
    if len(states) == size:
        set_random_state(states[rank])
        return
    seed = int.from_bytes(sha256(" ".join(map(str, (*facts, rank, size))).encode()).digest()[:7], "big")
    random.seed(seed)
    torch.manual_seed(seed)


def _to_text(state: Tensor) -> str:
    return b64encode(state.cpu().numpy().tobytes()).decode("ascii")


def _to_tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(b64decode(text, validate=True)), dtype=torch.uint8)
