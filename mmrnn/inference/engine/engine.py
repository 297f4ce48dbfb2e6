"""Engine: the thread that generates all replies."""

from threading import Condition, Thread

from mmrnn.inference.engine.request import EngineClosedError, GenerationRequest, Job, Listener, QueueFullError
from mmrnn.inference.engine.scheduler import Scheduler
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.reader import DialogueReader


class Engine:
    """Generates the replies to many requests in one thread: all of them get their next tokens from one forward pass.

    Prompts are read one at a time between these passes, in chunks, so that no reply waits for longer than a chunk.
    Every reply equals the one that it would be alone (up to rounding of logits). The states of earlier dialogues are
    kept, and found again by the tokens and images that a prompt begins with.

    Args:
        reader: of the model; the engine is the only one to use it, except for `prepare`.
        max_rows: replies that are generated at a time.
        max_waiting: requests beyond these that wait for their turn.
        prefill_chunk: positions of a prompt that are read between two steps.
        state_cache_bytes: of the states that are kept; 0: none.

    Raises:
        ValueError: a number is outside its range, or the model generates no text.
    """

    def __init__(
        self,
        reader: DialogueReader,
        *,
        max_rows: int = 8,
        max_waiting: int = 32,
        prefill_chunk: int = 256,
        state_cache_bytes: int = 2**28,
    ) -> None:
        if not reader.model.backbone.generates:
            raise ValueError(f"{type(reader.model.backbone).__name__} has no head, so that it generates no text")
        if max_waiting < 0:
            raise ValueError(f"max_waiting ({max_waiting}) must not be negative; 0 lets no request wait")
        self.reader, self.max_requests = reader, max_rows + max_waiting
        self._scheduler = Scheduler(
            reader, max_rows=max_rows, prefill_chunk=prefill_chunk, state_cache_bytes=state_cache_bytes
        )
        self._changed = Condition()
        self._new: list[Job] = []
        self._reserved, self._closed = 0, False
        self._thread = Thread(target=self._run, name="mmrnn-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Requests are answered."""
        return self._thread.is_alive() and not self._closed

    @property
    def requests(self) -> int:
        """Number of requests that are at hand."""
        return self._reserved

    def reserve(self) -> "Reservation":
        """Return a place for one request, before anything of it is read.

        Raises:
            QueueFullError: as many requests as `max_rows` and `max_waiting` allow are at hand.
            EngineClosedError: the engine is closed.
        """
        with self._changed:
            if not self.alive:
                raise EngineClosedError("the engine is closed")
            if self._reserved >= self.max_requests:
                raise QueueFullError(f"{self._reserved} requests are at hand, {self.max_requests} are allowed")
            self._reserved += 1
        return Reservation(self)

    def close(self, timeout: float | None = None) -> None:
        """End all requests with `EngineClosedError`, and the thread.

        Raises:
            TimeoutError: the thread is still at work after `timeout` seconds; None: it is waited for.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the engine is still at work after {timeout} s")

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, job: Job) -> None:
        with self._changed:
            if not self.alive:
                raise EngineClosedError("the engine is closed")
            self._new.append(job)
            self._changed.notify_all()

    def _release(self) -> None:
        with self._changed:
            self._reserved -= 1

    def _run(self) -> None:
        scheduler = self._scheduler
        try:
            with eval_mode(self.reader.model):
                while True:
                    with self._changed:
                        self._changed.wait_for(lambda: self._closed or self._new or scheduler.busy)
                        if self._closed:
                            break
                        scheduler.add(self._new)
                        self._new = []
                    scheduler.advance()
        finally:
            with self._changed:
                self._closed = True
                scheduler.add(self._new)
            scheduler.fail(EngineClosedError("the engine is closed"))


class Reservation:
    """A place for one request. As a context it is released at the end; an unfinished reply leaves at the next step."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._job, self._released = engine, None, False

    def submit(self, request: GenerationRequest, listener: Listener) -> None:
        """Let the engine answer a request.

        Raises:
            ValueError: the place is taken, or was released.
            EngineClosedError: the engine is closed.
        """
        if self._job is not None or self._released:
            raise ValueError("a reservation is for one request; make another one")
        self._job = Job(request, listener, self._engine.reader.device)
        self._engine._submit(self._job)

    def release(self) -> None:
        """Give the place back, and cancel the request if it has not ended."""
        if self._job is not None:
            self._job.cancelled = True
        if not self._released:
            self._released = True
            self._engine._release()

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
