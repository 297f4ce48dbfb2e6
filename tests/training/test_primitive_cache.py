import os
import subprocess
import sys

import pytest
import torch

from mmrnn.training.primitive_cache import CAPACITY, VARIABLES, limit_primitive_caches

GROWTH = """
import sys
import torch
from mmrnn.io.process_memory import resident_bytes
from mmrnn.training.primitive_cache import limit_primitive_caches

if sys.argv[1] == "limited":
    limit_primitive_caches()
torch.set_num_threads(1)
weight = torch.zeros(64, 64, dtype=torch.bfloat16)
rows = torch.zeros(1000, 64, dtype=torch.bfloat16)
torch.nn.functional.linear(rows, weight)
before = resident_bytes()
for size in range(100, 1000):
    torch.nn.functional.linear(rows[:size], weight)
print(resident_bytes() - before)
"""


def test_a_value_that_is_set_stays(monkeypatch):
    first, second = VARIABLES
    monkeypatch.setenv(first, "7")
    monkeypatch.delenv(second, raising=False)
    limit_primitive_caches()
    assert os.environ[first] == "7"
    assert os.environ.pop(second) == str(CAPACITY)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="bf16 products are not oneDNN's here")
def test_products_of_ever_new_shapes_take_less_memory():
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}

    def growth(kind):
        command = [sys.executable, "-c", GROWTH, kind]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=100)
        return int(done.stdout)

    assert growth("limited") < 0.6 * growth("unlimited")
