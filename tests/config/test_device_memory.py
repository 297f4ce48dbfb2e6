"""Memory of a device: of the process where torch counts none, and by torch's counters where it does."""

from mmap import PAGESIZE, mmap

import pytest
import torch

from mmrnn.config.device_memory import free_memory, peak_memory, reset_peak_memory, used_memory
from mmrnn.io import process_memory
from mmrnn.io.process_memory import can_reset_peak

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")


def test_of_the_process():
    assert peak_memory(CPU) > 50 * 2**20, "torch alone takes more"
    with mmap(-1, 2**28) as block:  # its pages go back to the kernel, whatever the allocator keeps
        for page in range(0, len(block), PAGESIZE):
            block[page] = 1
    before = peak_memory(CPU)
    assert reset_peak_memory(CPU) == can_reset_peak()
    if can_reset_peak():
        assert peak_memory(CPU) < before - 2**27
        assert 0 < used_memory(CPU) <= peak_memory(CPU)
        assert free_memory(CPU) > 0


def test_a_system_that_cannot_reset_the_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(process_memory, "RESET", tmp_path / "none")
    assert not reset_peak_memory(CPU)


@pytest.mark.parametrize(
    ("function", "counter", "shown", "wanted"),
    [
        (used_memory, "memory_allocated", 5, 5),
        (peak_memory, "max_memory_allocated", 7, 7),
        (free_memory, "mem_get_info", (3, 9), 3),
        (reset_peak_memory, "reset_peak_memory_stats", None, True),
    ],
)
def test_of_an_accelerator(monkeypatch, function, counter, shown, wanted):
    seen = []
    monkeypatch.setattr(torch.cuda, counter, lambda device: seen.append(device) or shown)
    assert function(CUDA) == wanted
    assert seen == [CUDA]
