"""Several samples in one row: every implementation without boundaries of its own gets them here."""

from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

Run = Callable[..., tuple[Tensor, Tensor]]


def lengths(op: str, bounds: Int[Tensor, " bounds"], rows: int, total: int) -> list[int]:
    """Length of every segment of the one row that is `total` long.

    Raises:
        ValueError: there are several rows, or the bounds do not lead from 0 to `total`.
    """
    if rows != 1:
        raise ValueError(f"{op}: cu_seqlens needs b = 1, got b = {rows}; join the rows into one")
    edges = bounds.tolist()
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != total:
        raise ValueError(f"{op}: cu_seqlens must go from 0 to t = {total}, got {edges}")
    found = [stop - start for start, stop in pairwise(edges)]
    if min(found) < 0:
        raise ValueError(f"{op}: cu_seqlens must not decrease, got {edges}")
    return found


def packed(op: str, run: Run, fill: tuple[float, ...]) -> Run:
    """Give `run(*inputs, state)` a last argument `cu_seqlens`: where each segment of a row starts anew.

    The first `len(fill)` inputs run over time (`b t ...`). Segments of about the same length (up to the next power
    of two) become the rows of a batch; what is missing at the end of a row gets the values of `fill`, which have to
    leave the state as it is. So at most half of what is computed is filling, however uneven the segments are.
    """

    @wraps(run)
    def wrapped(*arguments: Tensor | None) -> tuple[Tensor, Tensor]:
        *inputs, state, bounds = arguments
        if bounds is None:
            return run(*inputs, state)
        timed, rest = inputs[: len(fill)], inputs[len(fill) :]
        device, total = timed[0].device, timed[0].shape[1]
        sizes = lengths(op, bounds, timed[0].shape[0], total)
        if state is not None and len(state) != len(sizes):
            raise ValueError(f"{op}: {len(sizes)} segments need as many states, got state {list(state.shape)}")

        groups: defaultdict[int, list[int]] = defaultdict(list)
        for segment, size in enumerate(sizes):
            groups[max(size - 1, 0).bit_length()].append(segment)

        outs, states, places = [], [], []
        starts, length = bounds[:-1].to(device), torch.tensor(sizes, device=device)
        for members in groups.values():
            chosen = torch.tensor(members, device=device)
            offset = torch.arange(max(1, *(sizes[segment] for segment in members)), device=device)
            inside = offset < length[chosen, None]  # segments, positions
            place = torch.where(inside, starts[chosen, None] + offset, 0)
            rows = [
                torch.where(inside[..., None, None], x[0, place], value) for x, value in zip(timed, fill, strict=True)
            ]
            out, end = run(*rows, *rest, None if state is None else state[chosen])
            outs.append(out[inside])
            places.append(place[inside])
            states.append(end)
        order = torch.cat(places).argsort()
        members = torch.tensor([segment for members in groups.values() for segment in members], device=device)
        return torch.cat(outs)[order][None], torch.cat(states)[members.argsort()]

    return wrapped
