import subprocess
import sys

import numpy as np
import pytest

from mmrnn.io import process_memory
from mmrnn.io.process_memory import peak_resident_bytes, resident_bytes

SIZE = 2**28
RESET = """
import sys
import numpy as np
from mmrnn.io.process_memory import can_reset_peak, peak_resident_bytes, reset_peak, resident_bytes
reset_peak()
before = resident_bytes()
block = np.ones(int(sys.argv[1]), dtype=np.uint8)
print(resident_bytes() - before)
del block
print(peak_resident_bytes() - before)
assert can_reset_peak()
reset_peak()
print(peak_resident_bytes() - before)
"""
PEAK = "from mmrnn.io.process_memory import peak_resident_bytes; print(peak_resident_bytes())"

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_a_peak_stays_until_it_is_reset():
    """In a process of its own: other tests' memory may be given back meanwhile."""
    command = [sys.executable, "-c", RESET, str(SIZE)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    held, peak, after = (int(line) for line in output.split())
    assert held > 0.9 * SIZE
    assert peak > 0.9 * SIZE
    assert after < 0.5 * SIZE


@linux
def test_a_process_does_not_begin_with_the_peak_of_the_one_that_started_it():
    block = np.ones(SIZE, dtype=np.uint8)
    output = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, timeout=60).stdout
    del block
    assert 2**20 < int(output) < SIZE


@pytest.mark.parametrize("content", [None, "VmPeak: 5 kB\n"])
def test_systems_without_the_figure(tmp_path, monkeypatch, content):
    """There, the peak is that of getrusage."""
    resource = pytest.importorskip("resource")
    if content is not None:
        (tmp_path / "status").write_text(content)
    monkeypatch.setattr(process_memory, "STATUS", tmp_path / "status")
    assert resident_bytes() == 0
    unit = 1 if sys.platform == "darwin" else 1024
    assert peak_resident_bytes() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
