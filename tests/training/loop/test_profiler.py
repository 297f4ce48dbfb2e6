"""The trace holds the chosen steps, and what there is of them when a run ends early or resumes within them."""

import gzip
import json

import pytest
import torch
from torch.profiler import record_function

from mmrnn.training.loop.profiler import TRACE, StepProfiler


def taken(steps):
    for step in steps:
        with record_function(f"step {step}"):
            torch.ones(4, 4) @ torch.ones(4, 4)
        yield step


def traced(folder, chosen, steps):
    with StepProfiler(chosen, folder) as profiler:
        for number, step in enumerate(profiler.watch(taken(steps), steps[0]), steps[0]):
            assert step == number
    if not (folder / TRACE).is_file():
        return None
    events = json.loads(gzip.decompress((folder / TRACE).read_bytes()))["traceEvents"]
    assert any(event.get("name") == "aten::mm" for event in events)
    return sorted({event["name"] for event in events if event.get("name", "").startswith("step ")})


@pytest.mark.parametrize(
    ("chosen", "steps", "found"),
    [
        ((2, 3), range(1, 6), ["step 2", "step 3"]),
        ((2, 9), range(1, 4), ["step 2", "step 3"]),
        ((2, 4), range(3, 6), ["step 3", "step 4"]),
        ((7, 8), range(1, 4), None),
        (None, range(1, 4), None),
    ],
)
def test_steps_that_are_traced(tmp_path, chosen, steps, found):
    assert traced(tmp_path, chosen, steps) == found
    assert [path.name for path in tmp_path.iterdir()] == ([TRACE] if found else [])
