"""Trackers get each record once, resume the same curves, and neither fail nor delay a run.

Services that tests do not install are replaced by modules with the signatures of the real packages.
"""

import json
import sys
import threading
import time
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.training import AutoTracker, MLflow, NoTracker, SeveralTrackers, TensorBoard, Trackio, WandB
from mmrnn.training.trackers import tracker_thread, tracking
from mmrnn.training.trackers.tracking import numbers, track
from mmrnn.types import Tracker

WRITER = "torch.utils.tensorboard"

CONFIG = {"seed": 1, "stage": {"align": {"steps": 4}}}


def record(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "stage": "align", "loss": step / 8, **more}


class InMemory(Tracker):
    """Keeps what it gets; `fails` names the functions that fail."""

    def __init__(self, *fails: str):
        self.fails, self.calls = fails, []

    def _call(self, name: str, *arguments):
        if name in self.fails:
            raise ConnectionError(f"no network for {name}")
        self.calls.append((name, *arguments))

    def start(self, folder, config, *, id, step):
        self._call("start", folder.name, config, id, step)

    def log(self, step, values):
        self._call("log", step, values)

    def finish(self):
        self._call("finish")

    @property
    def steps(self):
        return [call[1] for call in self.calls if call[0] == "log"]


class Rewinding(InMemory):
    rewinds = True


def send(tracker: Tracker, folder, steps, start: int = 0) -> list[str]:
    """Track records of some steps of a run; return the messages."""
    messages: list[str] = []
    with track(tracker, folder, CONFIG, messages.append) as tracked:
        tracked.start(start)
        for step in steps:
            tracked.log(record(step))
    return messages


def test_numbers_of_a_record():
    given = record(
        3,
        dropped={"total": 2, "reasons": {"no image": {"samples": 2, "first": "a"}}},
        accuracy={"new scenes": 0.5},
        measured={"tokens_per_second": 10},
    )
    assert numbers(given) == {
        "loss": 0.375,
        "dropped/total": 2.0,
        "accuracy/new scenes": 0.5,
        "measured/tokens_per_second": 10.0,
    }


def test_a_run_is_started_logged_and_finished(tmp_path):
    one, two = InMemory(), Rewinding()
    assert send(SeveralTrackers(trackers={"one": one, "two": two}), tmp_path, [1, 2]) == []
    for tracker in (one, two):
        [start, first, second, finish] = tracker.calls
        assert (start[:3], start[4]) == (("start", tmp_path.name, CONFIG), 0)
        assert (first, second) == (("log", 1, {"loss": 0.125}), ("log", 2, {"loss": 0.25}))
        assert finish == ("finish",)


def test_values_of_a_step_may_come_one_after_the_other(tmp_path):
    tracker = InMemory()
    send(tracker, tmp_path, [1, 2, 2])
    assert tracker.steps == [1, 2, 2]


def test_a_resumed_run_repeats_no_step(tmp_path):
    """Snapshot at 4, killed at 8, again at 6: the service that cannot rewind gets each step once, under one id."""
    runs = [(range(1, 9), 0), (range(5, 7), 4), (range(5, 11), 4)]
    kept, rewinding = [InMemory() for _ in runs], [Rewinding() for _ in runs]
    for one, two, (steps, start) in zip(kept, rewinding, runs, strict=True):
        assert send(SeveralTrackers(trackers={"one": one, "two": two}), tmp_path, steps, start) == []
    assert [tracker.steps for tracker in kept] == [[*range(1, 9)], [], [9, 10]]
    assert [tracker.steps for tracker in rewinding] == [[*steps] for steps, _ in runs]
    assert [tracker.calls[0][4] for tracker in kept] == [0, 4, 4]
    assert len({tracker.calls[0][3] for tracker in kept}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tracker_one.json"]
    other = InMemory()
    send(other, tmp_path / "other", [1])
    assert other.calls[0][3] != kept[0].calls[0][3]


@pytest.mark.parametrize("fails", ["start", "log", "finish"])
def test_a_failing_tracker_is_told_once_and_counted(tmp_path, fails):
    failing, sound = InMemory(fails), InMemory()
    messages = send(SeveralTrackers(trackers={"bad": failing, "good": sound}), tmp_path, [1, 2, 3])
    assert messages[0] == (
        f"tracker bad failed, and training continues without it: ConnectionError: no network for {fails}"
    )
    assert messages[1:] == (
        [] if fails == "finish" else ["tracker bad: 3 records could not be sent; log.jsonl has all of them"]
    )
    assert sound.steps == [1, 2, 3]


def test_a_tracker_is_started_again_when_the_network_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker_thread, "RESTART_SECONDS", -1.0)
    tracker = InMemory("start")
    messages: list[str] = []
    with track(tracker, tmp_path, CONFIG, messages.append) as tracked:
        tracked.start(0)
        tracked.log(record(1))
        while len(messages) < 1 or tracked._threads[0]._unsent:
            time.sleep(0.001)
        tracker.fails = ()
        tracked.log(record(2))
    assert tracker.steps == [2]
    assert messages[1:] == ["tracker inmemory: 1 records could not be sent; log.jsonl has all of them"]


def test_a_waiting_tracker_delays_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.1)
    released = threading.Event()

    class Waiting(InMemory):
        def log(self, step, values):
            released.wait(30)

    began = time.monotonic()
    messages = send(Waiting(), tmp_path, [1, 2, 3])
    assert time.monotonic() - began < 5
    assert messages == ["tracker waiting: 3 records could not be sent; log.jsonl has all of them"]
    released.set()


def test_a_run_that_ends_before_its_first_step_ends_nothing(tmp_path):
    tracker = InMemory()
    with pytest.raises(KeyError), track(tracker, tmp_path, CONFIG, print):
        raise KeyError
    assert tracker.calls == []


def test_a_damaged_mark_is_told(tmp_path):
    (tmp_path / "tracker_inmemory.json").write_text('{"id": ')
    tracker = InMemory()
    messages = send(tracker, tmp_path, [1])
    assert "tracker_inmemory.json is damaged" in messages[0]
    assert "delete it to begin a new run there" in messages[0]
    assert tracker.calls == []


def test_the_names_of_several_are_names_of_files():
    with pytest.raises(ValueError, match=r"'../../x' is no name; use letters, digits, _ and -"):
        SeveralTrackers(trackers={"../../x": InMemory()})


def test_several_by_themselves():
    one, two = InMemory(), InMemory()
    several = SeveralTrackers(trackers={"one": one, "two": two})
    several.start(SimpleNamespace(name="run"), CONFIG, id="1", step=0)
    several.log(1, {"loss": 0.5})
    several.finish()
    assert one.calls == two.calls
    assert [call[0] for call in one.calls] == ["start", "log", "finish"]


def test_auto_is_tensorboard_where_it_is_installed(monkeypatch, stand_in):
    monkeypatch.setitem(sys.modules, WRITER, None)
    assert AutoTracker().trackers == NoTracker().trackers == {}
    stand_in(WRITER, SummaryWriter=None)
    assert isinstance(AutoTracker().trackers["tensorboard"], TensorBoard)


@pytest.mark.parametrize(
    ("tracker", "package"),
    [(TensorBoard, "tensorboard"), (WandB, "wandb"), (Trackio, "trackio"), (MLflow, "mlflow")],
)
def test_a_missing_package_is_named(monkeypatch, tracker, package):
    monkeypatch.setitem(sys.modules, WRITER if package == "tensorboard" else package, None)
    with pytest.raises(ImportError, match=rf"tracker={package} needs {package} .*pip install 'mmrnn\[{package}\]'"):
        tracker()


@pytest.fixture
def stand_in(monkeypatch):
    """Put a module in the place of a package."""

    def put(name: str, **content):
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)

    return put


def test_wandb(stand_in, tmp_path):
    calls = []

    class Run:
        def log(self, data: dict, step: int | None = None, commit: bool | None = None):
            calls.append((data, step))

        def finish(self, exit_code: int | None = None):
            calls.append("finish")

    def init(
        entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None, mode=None,
        resume=None, resume_from=None, fork_from=None, settings=None,
    ):  # fmt: skip
        calls.append((project, entity, dir, name, config, mode, resume, settings))
        return Run()

    stand_in("wandb", init=init)
    assert send(WandB(project="p", mode="offline"), tmp_path / "run", [1, 2]) == []
    [start, *rest] = calls
    folder = str(tmp_path / "run")
    assert start == ("p", None, folder, "run", CONFIG, "offline", "allow", {"console": "off"})
    assert rest == [({"loss": 0.125}, 1), ({"loss": 0.25}, 2), "finish"]


def test_trackio(stand_in, tmp_path):
    calls = []

    class Run:
        def log(self, metrics: dict, step: int | None = None):
            calls.append((metrics, step))

        def finish(self):
            calls.append("finish")

    def init(project: str, name=None, group=None, space_id=None, config=None, resume="never", embed=True):
        calls.append((project, name, space_id, config, resume, embed))
        return Run()

    stand_in("trackio", init=init)
    assert send(Trackio(space_id="a/b"), tmp_path / "run", [1]) == []
    assert send(Trackio(space_id="a/b"), tmp_path / "run", [1, 2]) == []
    [start, first, _, again, second, _] = calls
    assert start == again
    id = json.loads((tmp_path / "run" / "tracker_trackio.json").read_text())["id"]
    assert start == ("mmrnn", f"run-{id}", "a/b", CONFIG, "allow", False)
    assert (first, second) == (({"loss": 0.125}, 1), ({"loss": 0.25}, 2))


class Store:
    """Experiments and runs of an MLflow server, and the client that reaches them."""

    def __init__(self):
        self.experiments, self.runs = {}, {}

    def MlflowClient(self, tracking_uri: str | None = None, registry_uri: str | None = None):
        self.uri = tracking_uri
        return self

    def get_experiment_by_name(self, name: str):
        known = self.experiments.get(name)
        return known and SimpleNamespace(experiment_id=known)

    def create_experiment(self, name: str, artifact_location=None, tags=None) -> str:
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def search_runs(self, experiment_ids, filter_string="", run_view_type=1, max_results=1000):
        return [run for run in self.runs.values() if filter_string == f"tags.`mmrnn.run` = '{run.tags['mmrnn.run']}'"]

    def create_run(self, experiment_id: str, start_time=None, tags=None, run_name=None):
        id = f"r{len(self.runs)}"
        run = SimpleNamespace(info=SimpleNamespace(run_id=id), tags=tags, name=run_name, params={}, status="RUNNING")
        run.metrics = []
        self.runs[id] = run
        return run

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None):
        self.runs[run_id].status = status

    def log_batch(self, run_id: str, metrics=(), params=(), tags=(), synchronous=None):
        assert len(params) <= 100
        self.runs[run_id].metrics += metrics
        self.runs[run_id].params |= dict(params)

    def set_terminated(self, run_id: str, status: str | None = None, end_time=None):
        self.runs[run_id].status = "FINISHED"


def test_mlflow(stand_in, tmp_path):
    store = Store()
    entities = SimpleNamespace(
        Param=lambda key, value: (key, value), Metric=lambda key, value, timestamp, step: (key, value, step)
    )
    stand_in("mlflow", MlflowClient=store.MlflowClient, entities=entities)
    many = {**CONFIG, "many": {f"k{number}": "x" * 600 for number in range(150)}}
    for start, steps in ((0, [1, 2]), (1, [2, 3])):
        messages: list[str] = []
        with track(MLflow(tracking_uri="http://tracking"), tmp_path / "run", many, messages.append) as tracked:
            tracked.start(start)
            for step in steps:
                tracked.log(record(step))
        assert messages == []
    [run] = store.runs.values()
    assert (store.uri, run.name, run.status) == ("http://tracking", "run", "FINISHED")
    assert run.metrics == [("loss", 0.125, 1), ("loss", 0.25, 2), ("loss", 0.375, 3)]
    assert len(run.params) == 152
    assert run.params["stage.align.steps"] == "4"
    assert len(run.params["many.k0"]) == 500


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, range(1, 6)), (2, range(3, 8))):
        assert send(TensorBoard(), tmp_path, steps, start) == []
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in shown.Scalars("loss")] == [(step, step / 8) for step in range(1, 8)]
    assert b"stage.align.steps | 4" in shown.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


@pytest.mark.parametrize("name", ["auto", "none", "tensorboard", "wandb", "trackio", "mlflow", "several"])
def test_every_card_makes_a_tracker(name, stand_in):
    for package in (WRITER, "wandb", "trackio", "mlflow"):
        stand_in(package, SummaryWriter=None)
    card: Mapping[str, Any] = plain(compose(config=f"tracker/{name}"))["tracker"]
    assert isinstance(instantiate(card), Tracker)
