"""File of a sweep: processes that extend it at once lose no job of each other."""

import multiprocessing as mp

from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.reports.sweep_file import read_plan, record_plan


def extend(folder, name):
    for number in range(12):
        record_plan(folder, SweepPlan(grid={"seed": []}, jobs={f"job_{name}{number}": ["seed=1"]}))


def test_two_processes_extend_a_sweep_at_once(tmp_path):
    context = mp.get_context("fork")
    writers = [context.Process(target=extend, args=(tmp_path, name), daemon=True) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(100)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert {*read_plan(tmp_path).jobs} == {f"job_{name}{number}" for name in "ab" for number in range(12)}
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]
