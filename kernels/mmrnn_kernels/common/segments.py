"""Packed rows (several samples in one row) for implementations that know only whole rows."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise, zip_longest

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .checks import INDEX_DTYPES, check_dtypes, check_shapes, check_state_count

Implementation = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Batch:
    """Segments of similar length as rows of a batch, the shorter ones filled up.

    Attributes:
        members: numbers of the segments.
        place: place of each position in the packed row; 0 where it is padding.
        inside: False where a position is padding.
    """

    members: Int[Tensor, " n"]
    place: Int[Tensor, "n t"]
    inside: Bool[Tensor, "n t"]


@dataclass(frozen=True)
class Segments:
    """Segments of a packed row, prepared for all operators that read them.

    An operator that is given `cu_seqlens` waits for its values. A model prepares them once before its layers, which
    then wait for nothing, and which `torch.compile` can trace.

    Attributes:
        cu_seqlens: on the CPU.
        batches: segments whose lengths have the same next power of two.
        source: place of each position of the row in the outputs of all batches, one after the other.
        order: place of each segment among the final states of all batches.
    """

    cu_seqlens: Int[Tensor, " edges"]
    batches: tuple[Batch, ...]
    source: Int[Tensor, " t"]
    order: Int[Tensor, " segments"]

    @classmethod
    def of(cls, cu_seqlens: Int[Tensor, " edges"], device: torch.device | str = "cpu") -> "Segments":
        """Prepare the segments for inputs on a device.

        Raises:
            TypeError: cu_seqlens is no int32 or int64 tensor.
            ValueError: cu_seqlens does not increase from 0.
        """
        check_dtypes("Segments", INDEX_DTYPES, cu_seqlens=cu_seqlens)
        check_shapes("Segments", cu_seqlens=("edges", cu_seqlens))
        edges = cu_seqlens.cpu()
        lengths = segment_lengths("Segments", edges, 1, int(edges[-1]))
        batches = make_batches(edges.long(), lengths)
        source, order = torch.zeros(int(edges[-1]), dtype=torch.long), torch.zeros(len(lengths), dtype=torch.long)
        positions = segments = 0
        for batch in batches:
            count, padded = len(batch.members), batch.place.numel()
            padded_places = torch.arange(positions, positions + padded).view_as(batch.place)
            source[batch.place[batch.inside]] = padded_places[batch.inside]
            order[batch.members] = torch.arange(segments, segments + count)
            positions, segments = positions + padded, segments + count
        moved = (Batch(*(x.to(device) for x in (batch.members, batch.place, batch.inside))) for batch in batches)
        return cls(edges, tuple(moved), source.to(device), order.to(device))


def edges_of(cu_seqlens: Int[Tensor, " edges"] | Segments | None) -> Int[Tensor, " edges"] | None:
    """Return the edges of segments that may be prepared."""
    return cu_seqlens.cu_seqlens if isinstance(cu_seqlens, Segments) else cu_seqlens


def segment_lengths(op: str, cu_seqlens: Int[Tensor, " edges"], rows: int, total: int) -> list[int]:
    """Return the lengths of the segments of the one row of `total` positions.

    Raises:
        ValueError: there are several rows, or cu_seqlens does not increase from 0 to `total`.
    """
    check_one_row(op, rows)
    edges = cu_seqlens.tolist()
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != total:
        raise ValueError(f"{op}: cu_seqlens must go from 0 to t = {total}, got {edges}")
    lengths = [stop - start for start, stop in pairwise(edges)]
    if min(lengths) < 0:
        raise ValueError(f"{op}: cu_seqlens must not decrease, got {edges}")
    return lengths


def check_one_row(op: str, rows: int) -> None:
    """Check that there is one packed row.

    Raises:
        ValueError: there are several.
    """
    if rows != 1:
        raise ValueError(f"{op}: cu_seqlens needs b = 1, got b = {rows}; join the rows into one")


def prepare(op: str, cu_seqlens: Int[Tensor, " edges"] | Segments, x: Tensor) -> Segments:
    """Return the segments of the packed row x (`1 t ...`), prepared.

    Raises:
        ValueError: there are several rows, or the segments do not fit the row.
    """
    rows, total = x.shape[:2]
    if not isinstance(cu_seqlens, Segments):
        segment_lengths(op, cu_seqlens, rows, total)
        return Segments.of(cu_seqlens, x.device)
    check_one_row(op, rows)
    if len(cu_seqlens.source) != total:
        raise ValueError(f"{op}: cu_seqlens must go from 0 to t = {total}, got segments of {len(cu_seqlens.source)}")
    return cu_seqlens


def with_cu_seqlens(op: str, run: Implementation, padding: tuple[float | None, ...]) -> Implementation:
    """Extend `run(*inputs, state)` to `(*inputs, state, cu_seqlens)`.

    The inputs with a number in `padding` run over time (`b t ...`), the others and those behind them do not. Segments
    whose lengths have the same next power of two become the rows of one batch. Shorter rows are filled up with the
    values of `padding`, which must leave the state unchanged. So at most half of the positions computed are padding,
    however uneven the segments are.
    """

    @wraps(run)
    def packed(*arguments: Tensor | Segments | None) -> tuple[Tensor, Tensor]:
        *inputs, state, cu_seqlens = arguments
        if cu_seqlens is None:
            return run(*inputs, state)
        segments = prepare(op, cu_seqlens, inputs[0])
        check_state_count(op, state, len(segments.order))
        outs, ends = [], []
        for batch in segments.batches:
            rows = [
                x if value is None else fill_rows(batch, x, value)
                for x, value in zip_longest(inputs, padding, fillvalue=None)
            ]
            out, end = run(*rows, None if state is None else state[batch.members])
            outs.append(out.flatten(0, 1))
            ends.append(end)
        return torch.cat(outs)[segments.source][None], torch.cat(ends)[segments.order]

    return packed


def fill_rows(batch: Batch, x: Tensor, value: float) -> Tensor:
    """Cut the packed row x (`1 t ...`) into the rows of a batch (`n t ...`), with `value` where they are padded."""
    inside = batch.inside.reshape(*batch.inside.shape, *(1 for _ in x.shape[2:]))
    return torch.where(inside, x[0, batch.place], value)


def make_batches(cu_seqlens: Int[Tensor, " edges"], lengths: list[int]) -> list[Batch]:
    """Group segments of similar length into batches, on the CPU."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for segment, length in enumerate(lengths):
        groups[max(length - 1, 0).bit_length()].append(segment)
    starts, sizes = cu_seqlens[:-1], torch.tensor(lengths)
    found = []
    for group in groups.values():
        members = torch.tensor(group)
        offsets = torch.arange(max(1, *(lengths[segment] for segment in group)))
        inside = offsets < sizes[members, None]
        found.append(Batch(members, torch.where(inside, starts[members, None] + offsets, 0), inside))
    return found
