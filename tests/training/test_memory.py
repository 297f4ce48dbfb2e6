import subprocess
import sys

from mmrnn.training.memory import keep_freed

FAULTS = """
import resource, sys
import torch
from mmrnn.training.memory import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(2**24).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults()
given, works = faults(), keep_freed()
faults()
print(given, works, faults())
"""


def test_freed_memory_is_not_given_back():
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    before, works, after = told.split()
    assert works == str(keep_freed())
    # Without glibc nothing is promised.
    assert works == "False" or int(after) * 10 < int(before)
