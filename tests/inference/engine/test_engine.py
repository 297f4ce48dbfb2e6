"""Engine: its thread, its bounded queue, and its end."""

from queue import Queue
from threading import Event, Thread

import pytest

from mmrnn.inference.engine.engine import Engine
from mmrnn.inference.engine.prompt import prepare
from mmrnn.inference.engine.request import EngineClosedError, Finished, GenerationRequest, QueueFullError
from tests.inference.engine.test_scheduler import alone, sample, text
from tests.inference.scripted import IMAGE, OTHER, assistant

WAIT = 30


@pytest.fixture(scope="module")
def used():
    return assistant("visualrwkv6_tiny", "prompt=first")


@pytest.fixture
def engine(used):
    with Engine(used.reader, max_rows=2, max_waiting=3, prefill_chunk=16) as made:
        yield made


def request_of(used, dialogue, max_new_tokens=6):
    prompt = prepare(used.reader, dialogue)
    return GenerationRequest(prompt.row, used.stop, max_new_tokens, resume_points=prompt.resume_points)


def heard(queue):
    events = [queue.get(timeout=WAIT)]
    while not isinstance(events[-1], Finished):
        events.append(queue.get(timeout=WAIT))
    return events


def test_many_threads_ask(used, engine):
    images = [(), (IMAGE,), (OTHER,)]
    dialogues = [sample(f"{'why? ' * number}what?", images=images[number % 3]) for number in range(5)]
    expected, replies = [alone(used, each) for each in dialogues], {}

    def ask(number):
        with engine.reserve() as place:
            queue = Queue()
            place.submit(request_of(used, dialogues[number]), queue.put)
            replies[number] = text(used, heard(queue))

    threads = [Thread(target=ask, args=(number,), daemon=True) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert [replies[number] for number in range(5)] == expected
    assert engine.requests == 0


def test_the_queue_is_bounded(engine):
    places = [engine.reserve() for _ in range(5)]
    with pytest.raises(QueueFullError, match="5 requests are at hand, 5 are allowed"):
        engine.reserve()
    places[0].release()
    places[0].release()
    engine.reserve().release()
    assert engine.requests == 4


def test_a_released_request_leaves(used, engine):
    begun, queue = Event(), Queue()
    with engine.reserve() as place:
        place.submit(request_of(used, sample("what?"), 10**6), lambda _: begun.set())
        assert begun.wait(WAIT)
        with pytest.raises(ValueError, match="a reservation is for one request"):
            place.submit(request_of(used, sample("what?")), queue.put)
    with engine.reserve() as place:
        place.submit(request_of(used, sample("what?")), queue.put)
        assert heard(queue)[-1].reason == "length"
    for _ in range(1000):
        if not engine._scheduler.busy:
            break
        begun.wait(0.01)
    assert not engine._scheduler.busy
    with pytest.raises(ValueError, match="a reservation is for one request"):
        place.submit(request_of(used, sample("what?")), queue.put)


def test_close_ends_requests_and_the_thread(used):
    made, queue, begun = Engine(used.reader, max_rows=1), Queue(), Event()
    places = [made.reserve() for _ in range(3)]
    places[0].submit(request_of(used, sample("what?"), 10**6), lambda event: (begun.set(), queue.put(event)))
    places[1].submit(request_of(used, sample("why?")), queue.put)
    assert begun.wait(WAIT)
    assert made.alive
    made.close(WAIT)
    assert not made.alive
    assert not made._thread.is_alive()
    ends = []
    while not queue.empty():
        event = queue.get_nowait()
        ends += [event] if isinstance(event, Finished) else []
    assert [type(end.error) for end in ends] == [EngineClosedError] * 2
    with pytest.raises(EngineClosedError, match="closed"):
        made.reserve()
    with pytest.raises(EngineClosedError, match="closed"):
        places[2].submit(request_of(used, sample("what?")), queue.put)
    made.close(WAIT)


def test_the_model_gets_its_mode_back(used):
    used.model.train()
    try:
        with Engine(used.reader) as made, made.reserve() as place:
            queue = Queue()
            place.submit(request_of(used, sample("what?")), queue.put)
            heard(queue)
            assert not used.model.training
        assert used.model.training
    finally:
        used.model.eval()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"max_waiting": -1}, r"max_waiting \(-1\)"), ({"max_rows": 0}, r"max_rows \(0\)")],
)
def test_bounds(used, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Engine(used.reader, **options)


def test_a_model_without_a_head(used, monkeypatch):
    monkeypatch.setattr(type(used.model.backbone), "generates", False)
    with pytest.raises(ValueError, match="RWKV6 has no head, so that it generates no text"):
        Engine(used.reader)


def test_requests_are_checked(used):
    row = prepare(used.reader, sample("what?")).row
    with pytest.raises(ValueError, match=r"max_new_tokens \(0\)"):
        GenerationRequest(row, used.stop, 0)
    with pytest.raises(ValueError, match="log_probs"):
        GenerationRequest(row, used.stop, log_probs=-1)
    with pytest.raises(ValueError, match="the prompt is empty"):
        GenerationRequest(row._replace(ids=[]), used.stop)
