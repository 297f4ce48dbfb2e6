"""Order of the work of the engine: one unit of reading, one step of all rows, and so on."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from mmrnn.inference.dialogue import DialogueRow
from mmrnn.inference.engine.decoding import DecodingRows
from mmrnn.inference.engine.prefill import read_prompt
from mmrnn.inference.engine.request import Job
from mmrnn.inference.engine.state_cache import StateCache
from mmrnn.inference.reader import DialogueReader
from mmrnn.types import State

log = logging.getLogger(__name__)


class Scheduler:
    """Jobs that wait, the one whose prompt is read, and those that are decoded together. For one thread.

    Args:
        reader: of the model, in evaluation mode.
        max_rows: jobs that are read or decoded at a time.
        prefill_chunk: positions of a prompt that are read between two steps.
        state_cache_bytes: of the states of earlier dialogues; 0: none are kept.

    Attributes:
        waiting: jobs that nothing has been read of.
        rows: jobs that are decoded.
        states: of earlier dialogues.

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(self, reader: DialogueReader, *, max_rows: int, prefill_chunk: int, state_cache_bytes: int) -> None:
        for name, value in (("max_rows", max_rows), ("prefill_chunk", prefill_chunk)):
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        self.reader, self.max_rows, self.prefill_chunk = reader, max_rows, prefill_chunk
        self.waiting: deque[Job] = deque()
        self.rows = DecodingRows(reader.model, self._keep if reader.causal and state_cache_bytes else None)
        self.states = StateCache(state_cache_bytes)
        self._weights = reader.weights
        self._reading: tuple[Job, Iterator[tuple[Tensor, State] | None]] | None = None

    @property
    def busy(self) -> bool:
        """There is work to do."""
        return bool(self.waiting or self._reading or self.rows)

    def add(self, jobs: Iterable[Job]) -> None:
        """Let jobs wait for their turn."""
        self.waiting.extend(jobs)

    @torch.no_grad()
    def advance(self) -> None:
        """Do one unit of reading, and one step of all rows."""
        self._read()
        try:
            self.rows.step()
        except Exception as error:  # such as a lack of memory; the engine lives on
            log.exception("a step has failed; its %d replies end", len(self.rows))
            self.rows.fail(error)

    def fail(self, error: Exception) -> None:
        """End all jobs."""
        reading = [self._reading[0]] if self._reading else []
        self._reading = None
        for job in (*reading, *self.waiting):
            job.fail(error)
        self.waiting.clear()
        self.rows.fail(error)

    def _read(self) -> None:
        self.waiting = deque(job for job in self.waiting if not job.cancelled)
        if self._reading and self._reading[0].cancelled:
            self._reading = None
        if not self._reading and self.waiting and len(self.rows) < self.max_rows:
            if self.reader.weights is not self._weights:  # states of other weights
                self.states.clear()
                self._weights = self.reader.weights
            job = self.waiting.popleft()
            self._reading = job, read_prompt(self.reader, job, self.states, self.prefill_chunk)
        if not self._reading:
            return
        job, units = self._reading
        try:
            if (read := next(units)) is not None:
                self._reading = None
                self.rows.join(job, *read)
        except Exception as error:  # of this prompt alone
            log.exception("a prompt of %d positions cannot be read", len(job.request.row.ids))
            self._reading = None
            job.fail(error)

    def _keep(self, job: Job, state: State) -> None:
        """Keep the state after a reply, for the next turn of its dialogue."""
        row = job.request.row
        read = DialogueRow(row.ids + job.ids[:-1], row.spans, row.inputs)
        self.states.put(read, len(read.ids), state)
