"""Steps between two records of the log, kept by a checkpoint."""

import json

from mmrnn.training.distributed.world import World
from mmrnn.training.loop.record_window import RecordWindow


def filled(*losses):
    window = RecordWindow(World())
    for number, loss in enumerate(losses):
        window.add(loss, 10.0 * loss, 0.1 * number, number, [("a", "broken"), ("b", "broken")], 100)
    return window


def test_a_record_is_of_the_steps_since_the_last():
    window = filled(1.0, 2.0, 6.0)
    assert len(window) == 3
    dropped = {"total": 6, "reasons": {"broken": {"samples": 6, "first": "a"}}}
    figures = {"loss": 3.0, "grad_norm": 30.0, "lr": 0.2, "skipped_steps": 3, "tokens": 300}
    assert window.take() == figures | {"dropped": dropped}
    assert len(window) == 0
    window.add(5.0, 50.0, 0.5, 0, [])
    assert window.take() == {
        "loss": 5.0,
        "grad_norm": 50.0,
        "lr": 0.5,
        "skipped_steps": 0,
        "tokens": 0,
        "dropped": {"total": 0, "reasons": {}},
    }


def test_a_restored_window_gives_the_same_record():
    state = json.loads(json.dumps(filled(1 / 3, 2.0).state_dict()))
    for rank, total, tokens in ((0, 4, 200), (1, 0, 0)):
        window = RecordWindow(World())
        window.world = World(rank, 1)
        window.load_state_dict(state)
        record = window.take()
        assert (record["dropped"]["total"], record["tokens"]) == (total, tokens)
        rest = {"dropped": None, "tokens": None}
        assert record | rest == filled(1 / 3, 2.0).take() | rest
