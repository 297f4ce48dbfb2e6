"""Token shift and WKV on rows that hold several segments: both start anew at each segment boundary."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from mmrnn.types import ANY_SEGMENT
from mmrnn_kernels import Segments, lerp


@dataclass(frozen=True)
class SegmentBounds:
    """Boundaries of the segments of packed rows.

    Attributes:
        starts: True at the first position of a segment that does not continue the one of the state.
        segments: all segments, row after row, prepared once for all layers.
        first: index of the first segment of each row.
        last: index of the last segment of each row.
    """

    starts: Bool[Tensor, "b t"]
    segments: Segments
    first: Int[Tensor, " b"]
    last: Int[Tensor, " b"]

    @classmethod
    def of(cls, segments: Int[Tensor, "b t"] | None, previous: Int[Tensor, " b"] | None) -> "SegmentBounds | None":
        """Find the boundaries; None: each row is one segment that continues its state.

        Args:
            previous: segment that the state of each row ends in; None: that of its first position.
        """
        if segments is None:
            return None
        first = segments[:, 0]
        previous = first if previous is None else torch.where(previous == ANY_SEGMENT, first, previous)
        starts = torch.cat([previous[:, None], segments[:, :-1]], dim=1) != segments
        heads = starts.to("cpu", copy=True)  # the only time that the device is waited for
        if not bool(heads.any()):
            return None
        heads[:, 0], device = True, starts.device
        edges = heads.flatten().nonzero().flatten()
        cu_seqlens = torch.cat([edges, edges.new_tensor([segments.numel()])])
        last = heads.sum(1).cumsum(0) - 1
        first = F.pad(last[:-1] + 1, (1, 0))
        return cls(starts, Segments.of(cu_seqlens, device), first.to(device), last.to(device))


def run_lerp(
    x: Float[Tensor, "b t d"],
    previous: Float[Tensor, "b *t d"],
    weights: Float[Tensor, "n d"],
    offsets: Float[Tensor, "n b t d"] | None,
    bounds: SegmentBounds | None,
    backend: str,
) -> list[Float[Tensor, "b t d"]]:
    """Mix each token with the one before it, n times.

    Args:
        previous: token before the first one (`b d`), or before every one (`b t d`).
        weights: weights of the previous token.
        offsets: data-dependent additions to `weights`.
    """
    starts = None if bounds is None else bounds.starts
    return lerp(x, previous, weights, offsets, starts=starts, backend=backend)


def run_wkv(
    op: Callable[..., tuple[Tensor, Tensor]],
    tensors: tuple[Float[Tensor, "b t *_"], ...],
    constants: tuple[Tensor, ...],
    state: Float[Tensor, "b *_ v"],
    bounds: SegmentBounds | None,
    backend: str,
) -> tuple[Float[Tensor, "b t *_"], Float[Tensor, "b *_ v"]]:
    """Call a recurrent operator: the first segment of each row continues from its state, later ones from zero.

    Args:
        constants: inputs of the operator without a time axis (decay, bonus).
    """
    if bounds is None:
        return op(*tensors, *constants, state, backend=backend)
    b, t = tensors[0].shape[:2]
    flat = tuple(x.reshape(1, b * t, *x.shape[2:]) for x in tensors)
    state = state.masked_fill(bounds.starts[:, 0].view(b, *(1 for _ in state.shape[1:])), 0)
    initial = state.new_zeros(len(bounds.segments.order), *state.shape[1:]).index_copy(0, bounds.first, state)
    out, final = op(*flat, *constants, initial, cu_seqlens=bounds.segments, backend=backend)
    return out.view(b, t, *out.shape[2:]), final[bounds.last]
