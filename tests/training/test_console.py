"""The time left is shown on a terminal and elsewhere."""

from io import StringIO

import pytest
from rich.console import Console as RichConsole

from mmrnn.training.trackers import console
from mmrnn.training.trackers.console import Console, TimeLeft
from mmrnn.training.trackers.status_line import status_line


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when set."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_lines_where_there_is_no_terminal(clock):
    out = StringIO()
    with Console(RichConsole(file=out, width=200)).progress("stage", 840, 40) as show:
        for step in range(41, 841):
            clock[0] += 1.0
            show(step, f"stage loss {step}.0")
    lines = out.getvalue().splitlines()
    assert lines[0] == "stage loss 50.0: 50 of 840, 0:13:10 left"
    assert lines[1] == "stage loss 80.0: 80 of 840, 0:12:40 left"
    # A tenth of what has elapsed lies between the later ones.
    assert 10 < len(lines) < 25
    steps = [int(line.split(": ")[1].split()[0]) for line in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] < 840


def test_the_first_minute_of_a_tracked_loop_says_the_time_left(clock):
    out = StringIO()
    for _ in Console(RichConsole(file=out, width=200)).tracker("features: train")(range(10)):
        clock[0] += 12.0
    assert out.getvalue().splitlines()[:2] == [
        "features: train: 1 of 10, 0:01:48 left",
        "features: train: 4 of 10, 0:01:12 left",
    ]


def test_the_time_left_of_the_whole_run(clock):
    out = StringIO()
    console = Console(RichConsole(file=out, width=200))
    console.plan({"features": 100.4, "training": 3600.0, "evaluation": 0.0})
    for phase in ("features", "training"):
        console.begin(phase)
        for _ in console.tracker(phase)(range(2)):
            clock[0] += 20.0
    assert out.getvalue().splitlines() == [
        "about 1:01:40 in all (features 0:01:40, training 1:00:00)",
        "features: 1 of 2, 0:00:20 left, 1:00:20 of the whole run",
        "training: 1 of 2, 0:00:20 left",
    ]


def test_a_bar_on_a_terminal():
    out = StringIO()
    terminal = Console(RichConsole(file=out, width=200, force_terminal=True))
    assert list(terminal.tracker("features")(range(3, 6))) == [3, 4, 5]
    assert "features" in out.getvalue()
    assert "3/3" in out.getvalue()


def test_every_line_of_a_job_beside_others_names_it(clock):
    """On a terminal, too: bars of several jobs would overwrite each other."""
    out = StringIO()
    job = Console(RichConsole(file=out, width=200, force_terminal=True, no_color=True), label="s/job_1")
    assert not job.is_terminal
    job.plan({"training": 60.0})
    for _ in job.tracker("training")(range(2)):
        clock[0] += 30.0
    job.status("training 2 of 2")
    row = {"accuracy": 0.5, "chance": 0.25, "majority": 0.25, "blind": 0.25}
    job.table({"scenes": {"count": row}})
    lines = out.getvalue().splitlines()
    assert lines[:3] == [
        "s/job_1: about 0:01:00 in all (training 0:01:00)",
        "s/job_1: training: 1 of 2, 0:00:30 left",
        "s/job_1: training 2 of 2",
    ]
    assert "s/job_1" in lines[3]


def test_a_status_takes_the_place_of_the_next_line(clock):
    out = StringIO()
    console = Console(RichConsole(file=out, width=200))
    with console.progress("stage", 100) as show:
        for step in range(1, 31):
            clock[0] += 2.0
            show(step, "stage")
            if step % 5 == 0:
                console.status(f"status {step}")
    console.status("status at the end")
    assert out.getvalue().splitlines() == [
        *["stage: 5 of 100, 0:03:10 left", *(f"status {step}" for step in range(5, 31, 5)), "status at the end"],
    ]
    terminal = Console(RichConsole(file=StringIO(), width=200, force_terminal=True))
    terminal.status("status")
    assert terminal.console.file.getvalue() == "", "there is a bar"


def test_time_left(clock):
    left = TimeLeft(40, 10)
    clock[0] += 30.0
    assert left.seconds(20) == 60.0


def test_line_of_a_record():
    record = {"step": 1200, "stage": "align", "loss": 2.34567, "lr": 1e-3, "skipped_steps": 0, "dropped": {"total": 0}}
    assert status_line(record, 12000) == "align 1,200 of 12,000: loss 2.346, lr 0.001"
    measured = {
        "tokens_per_second": 1234.5,
        "images_per_second": 12.34,
        "padding": 0.031,
        "data_wait": 0.0042,
        "tflops": 1.0,
        "mfu": 0.314,
        "peak_memory_gib": 2.34,
        "seconds_left": 730.4,
    }
    more = {"grad_norm": 0.8768, "skipped_steps": 2, "dropped": {"total": 3}, "measured": measured}
    assert status_line(record | more, 12000) == (
        "align 1,200 of 12,000: loss 2.346, norm 0.877, lr 0.001, 1,234 tokens/s, 12.3 images/s, 3.1% padding, "
        "0.4% waiting for data, MFU 31.4%, 2.3 GiB, 2 steps skipped, 3 samples dropped, 0:12:10 left"
    )
