"""A run is seen: in the log, on stderr, in its trackers, in its report and in a trace; a resumed one continues them."""

import gzip
import json
from io import StringIO

import pytest
from rich.console import Console as RichConsole

from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.evaluation.reports.run_report import THROUGHPUT
from mmrnn.io import jsonl
from mmrnn.training import preparation, run
from mmrnn.training.distributed.world import World
from mmrnn.training.loop.metrics import Meter
from mmrnn.training.loop.profiler import TRACE
from mmrnn.training.loop.stepper import StepResult
from mmrnn.training.run_log import RunLog
from mmrnn.training.saving.checkpointing import Checkpoints
from mmrnn.training.trackers import console
from mmrnn.training.trackers.choice import NoTracker
from mmrnn.training.trackers.tracking import track
from mmrnn.types import Tracker
from tests.training.distributed.ranks import run_ranks

SMALL = (
    "model=visualrwkv6_tiny",
    "data.scenes=12",
    "data.rounds=4",
    "stage=align_then_instruct",
    "stage.align.steps=2",
    "stage.align.batch_size=4",
    "stage.instruct.steps=4",
    "stage.instruct.batch_size=4",
    "evaluate.samples=1",
    "evaluate.every=2",
    "evaluate.max_new_tokens=2",
    "log_every=2",
    "save_every_seconds=0",
    "max_save_share=1",
)


class InMemory(Tracker):
    """Keeps what it gets."""

    def __init__(self):
        self.started, self.values, self.finished = None, [], False

    def start(self, folder, config, *, id, step):
        self.started = step

    def log(self, step, values):
        self.values.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def tracked(monkeypatch):
    """Train with trackers that are kept in a list."""
    trackers = []

    def make(card, **_):
        trackers.append(InMemory())
        return trackers[-1]

    monkeypatch.setattr(run, "instantiate", make)
    return trackers


def test_a_run_is_seen(tmp_path, tracked, capsys):
    run.train(plain(compose(*SMALL, "profile=[2,3]", "peak_tflops=0.5")), tmp_path)
    log = jsonl.records(tmp_path / "log.jsonl")
    assert [(record["step"], record["stage"]) for record in log] == [(2, "align"), (4, "instruct"), (6, "instruct")]
    for record in log:
        measured = record["measured"]
        assert set(measured) == {*THROUGHPUT, "seconds", "seconds_left"}
        assert measured["tokens_per_second"] > measured["images_per_second"] > 0
        assert 0 <= measured["padding"] < 1
        assert 0 < measured["data_wait"] < 1
        assert measured["mfu"] == pytest.approx(measured["tflops"] / 0.5, rel=2e-3)
    assert log[-1]["grad_norm"] > 0
    lines = [line for line in capsys.readouterr().err.splitlines() if " tokens/s" in line]
    assert [line.split(":")[0] for line in lines] == ["align 2 of 6", "instruct 4 of 6", "instruct 6 of 6"]
    assert all("waiting for data" in line and line.endswith(" left") for line in lines)

    [tracker] = tracked
    assert (tracker.started, tracker.finished) == (0, True)
    *steps, (last, accuracy) = tracker.values
    assert [step for step, _ in steps] == [2, 4, 6]
    assert [values["loss"] for _, values in steps] == [record["loss"] for record in log]
    assert steps[0][1]["measured/tokens_per_second"] == log[0]["measured"]["tokens_per_second"]
    assert steps[1][1]["accuracy/scenes"] == log[1]["accuracy"]["scenes"]
    assert (last, set(accuracy)) == (6, {"accuracy/scenes", "accuracy/drawings", "accuracy/writing"})

    report = (tmp_path / "report.html").read_text()
    assert all(label in report for label, _ in THROUGHPUT.values())
    names = [event.get("name") for event in json.loads(gzip.decompress((tmp_path / TRACE).read_bytes()))["traceEvents"]]
    assert [names.count(name) for name in ("wait for data", "forward", "backward", "optimizer")] == [2] * 4


def test_a_resumed_run_goes_on_with_its_curves(tmp_path, tracked, monkeypatch):
    """Stopped after the record of step 4, whose checkpoint was not saved: step 4 is repeated, and sent once."""
    save = Checkpoints.save

    def stop(self, step, progress, *rest, **more):
        if step == 4:
            raise KeyboardInterrupt
        if progress.stage == 0:
            save(self, step, progress, *rest, **more)

    cfg = plain(compose(*SMALL, "evaluate.samples=0"))
    monkeypatch.setattr(Checkpoints, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        run.train(cfg, tmp_path)
    monkeypatch.setattr(Checkpoints, "save", save)
    run.train(cfg, tmp_path)
    assert [tracker.started for tracker in tracked] == [0, 2]
    assert [[step for step, _ in tracker.values] for tracker in tracked] == [[2, 4], [6, 6]]
    assert all(tracker.finished for tracker in tracked)
    assert [record["step"] for record in jsonl.records(tmp_path / "log.jsonl")] == [2, 4, 6]


@pytest.mark.parametrize(("phases", "left"), [({}, 70), ({"training align": 1, "training instruct": 900}, 930)])
def test_the_time_left_is_that_of_the_run(tmp_path, monkeypatch, phases, left):
    """With an estimate of the phases to come, or by the steps of the stages that follow."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    shown = console.Console(RichConsole(file=StringIO()))
    if phases:
        shown.plan(phases)
    with track(NoTracker(), tmp_path, {}, print) as tracking:
        log = RunLog(out=tmp_path, world=World(), console=shown, tracking=tracking, steps=9)
        with log.stage("align", Meter(), steps=5, start=1, before=0) as stage:
            now[0] += 10.0
            stage.add(StepResult(2, loss=1.0, lr=0.1, norm=1.0))
            assert stage.record(2)["measured"]["seconds_left"] == left


def train_tracked(world, out):
    """Train as one of several processes; what its tracker got."""
    trackers = []
    run.instantiate = lambda *_, **__: trackers.append(InMemory()) or trackers[-1]
    run.train(plain(compose(*SMALL, "evaluate.samples=0", "stage.instruct.steps=2")), out, world=world)
    return [(tracker.started, [step for step, _ in tracker.values]) for tracker in trackers]


def test_the_first_of_two_processes_tracks_for_both(tmp_path):
    first, second = run_ranks(2, train_tracked, tmp_path, tmp_path / "two")
    assert first == [(0, [2, 4, 4])]
    assert second == [(None, [])]
    log = jsonl.records(tmp_path / "two" / "log.jsonl")
    assert [record["step"] for record in log] == [2, 4]
    assert log[-1]["grad_norm"] > 0


def test_flops_that_cannot_be_counted_are_left_out(tmp_path, tracked, capsys, monkeypatch):
    def fail(*_, **__):
        raise NotImplementedError("item on meta")

    monkeypatch.setattr(preparation, "stage_costs", fail)
    run.train(plain(compose(*SMALL, "evaluate.samples=0", "stage.instruct.steps=1")), tmp_path)
    assert "FLOPs are not counted" in capsys.readouterr().err
    assert all("tflops" not in record["measured"] for record in jsonl.records(tmp_path / "log.jsonl"))


@pytest.mark.parametrize("given", ["[3,2]", "[0,2]", "[1,2,3]", "4"])
def test_steps_that_cannot_be_traced(given, tmp_path):
    with pytest.raises(ConfigError, match=r"profile: expected tuple\[int, int\] whose first step is at least 1"):
        run.train(plain(compose(*SMALL, f"profile={given}")), tmp_path)
