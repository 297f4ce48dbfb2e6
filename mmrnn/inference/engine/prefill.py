"""Reading of a prompt in small units, between which other work can be done."""

from collections.abc import Iterator

from torch import Tensor

from mmrnn.inference.engine.request import Job
from mmrnn.inference.engine.state_cache import StateCache
from mmrnn.inference.reader import DialogueReader
from mmrnn.types import SLOT, State


def read_prompt(
    reader: DialogueReader, job: Job, states: StateCache, prefill_chunk: int
) -> Iterator[tuple[Tensor, State] | None]:
    """Read the prompt of a job behind the longest beginning whose state is kept; yield after each unit.

    A unit is the encoding of one image, or one chunk. Where the model reads a prompt as a whole
    (`DialogueReader.causal`), that is one chunk.

    Args:
        reader: of the model.
        job: whose `cached` is set.
        states: to begin from; the states at the resume points of the prompt are put into it.
        prefill_chunk: positions of a chunk; longer where it would split images.

    Yields:
        None, and after the last unit the hidden state of the last position (`1 d`) with the state after it.
    """
    row, points = job.request.row, job.request.resume_points
    job.cached, state = states.find(row) if reader.causal else (0, None)
    start = job.cached
    for span, item in zip(row.spans, row.inputs, strict=True):
        if span.start >= start and reader.visual.get(item.key) is None:
            reader.encode(item)
            yield
    for end in (*(point for point in points if point > start), len(row.ids)):
        while start < end:
            stop = chunk_end(row.ids, min(start + prefill_chunk, end)) if reader.causal else end
            last, state = reader.read(row, start, stop, state)
            start = stop
            if start == end and end in points:
                states.put(row, end, state)
            yield (last, state) if start == len(row.ids) else None


def chunk_end(ids: list[int], stop: int) -> int:
    """Return the first position from `stop` on that is neither inside an image nor between two that adjoin."""
    while 0 < stop < len(ids) and ids[stop - 1] == ids[stop] == SLOT:
        stop += 1
    return stop
