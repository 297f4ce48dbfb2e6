"""Packed rows (several samples in one row) for implementations that know only whole rows."""

from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from .checks import check_state_count

Implementation = Callable[..., tuple[Tensor, Tensor]]


def segment_lengths(op: str, cu_seqlens: Int[Tensor, " edges"], rows: int, total: int) -> list[int]:
    """Lengths of the segments of the one row of `total` positions.

    Raises:
        ValueError: there are several rows, or cu_seqlens does not increase from 0 to `total`.
    """
    if rows != 1:
        raise ValueError(f"{op}: cu_seqlens needs b = 1, got b = {rows}; join the rows into one")
    edges = cu_seqlens.tolist()
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != total:
        raise ValueError(f"{op}: cu_seqlens must go from 0 to t = {total}, got {edges}")
    lengths = [stop - start for start, stop in pairwise(edges)]
    if min(lengths) < 0:
        raise ValueError(f"{op}: cu_seqlens must not decrease, got {edges}")
    return lengths


def with_cu_seqlens(op: str, run: Implementation, padding: tuple[float, ...]) -> Implementation:
    """Extend `run(*inputs, state)` to `(*inputs, state, cu_seqlens)`.

    The first `len(padding)` inputs run over time (`b t ...`). Segments whose lengths have the same next power of two
    become the rows of one batch. Shorter rows are filled up with the values of `padding`, which must leave the state
    unchanged. So at most half of the positions computed are padding, however uneven the segments are.
    """

    @wraps(run)
    def packed(*arguments: Tensor | None) -> tuple[Tensor, Tensor]:
        *inputs, state, cu_seqlens = arguments
        if cu_seqlens is None:
            return run(*inputs, state)
        timed, constants = inputs[: len(padding)], inputs[len(padding) :]
        rows, total = timed[0].shape[:2]
        lengths = segment_lengths(op, cu_seqlens, rows, total)
        check_state_count(op, state, len(lengths))

        outs, ends, positions, order = [], [], [], []
        for members, place, inside in batches(cu_seqlens.to(timed[0].device), lengths):
            batch = [
                torch.where(inside[..., None, None], x[0, place], value)
                for x, value in zip(timed, padding, strict=True)
            ]
            out, end = run(*batch, *constants, None if state is None else state[members])
            outs.append(out[inside])
            ends.append(end)
            positions.append(place[inside])
            order.append(members)
        return torch.cat(outs)[torch.cat(positions).argsort()][None], torch.cat(ends)[torch.cat(order).argsort()]

    return packed


def batches(cu_seqlens: Int[Tensor, " edges"], lengths: list[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Batches of segments of similar length: their numbers (`n`), and of every position of the batch its place in the
    packed row and whether it belongs to the segment (`n t`).
    """
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for segment, length in enumerate(lengths):
        groups[max(length - 1, 0).bit_length()].append(segment)
    device = cu_seqlens.device
    starts, sizes = cu_seqlens[:-1], torch.tensor(lengths, device=device)
    found = []
    for group in groups.values():
        members = torch.tensor(group, device=device)
        offsets = torch.arange(max(1, *(lengths[segment] for segment in group)), device=device)
        inside = offsets < sizes[members, None]
        found.append((members, torch.where(inside, starts[members, None] + offsets, 0), inside))
    return found
