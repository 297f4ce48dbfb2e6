"""Positions and attention masks of transformers with a KV cache, for packed and padded rows too."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmrnn.types import ANY_SEGMENT, PADDING_SEGMENT, Scan, Sequence, State


def refuse_scan(sequence: Sequence, scan: Scan | None, depth: int) -> None:
    """Check that no layer would read the patches in another order.

    Raises:
        ValueError: `scan` reorders patches.
    """
    layouts = {span.layout for span in sequence.image_spans}
    if scan is not None and any(scan(layer, layout) is not None for layer in range(depth) for layout in layouts):
        raise ValueError("a transformer attends to all patches at once and takes no scan; use scan=forward")


def positions_and_mask(
    sequence: Sequence, state: State
) -> tuple[Int[Tensor, "b t *axes"], Bool[Tensor, "b 1 t s"] | None, dict[str, Tensor]]:
    """Position ids, attention mask (None: causal), and the shared tensors of the next state."""
    mask, shared, segment_start = attention_mask(sequence, state)
    positions = sequence.positions
    if positions is None:
        steps = torch.arange(sequence.ids.shape[1], device=sequence.ids.device)
        continued = state.shared["next_position"][:, None] + steps
        positions = torch.where(segment_start >= 0, steps - segment_start, continued)
    last = positions[:, -1]
    return positions, mask, {**shared, "next_position": (last if last.dim() == 1 else last.amax(-1)) + 1}


def cached_length(state: State) -> int:
    """Return the number of cached keys of a row: that of any layer that attends."""
    return next((layer["key"].shape[2] for layer in state.layers if "key" in layer), 0)


def extend_segments(
    cached: Int[Tensor, "b past"] | None, given: Int[Tensor, "b t"] | None, past: int, t: int
) -> Int[Tensor, "b s"]:
    """Segments of all cached and new keys, where one of the two is given.

    Without `given`, new keys belong to the segment of the last cached key; without `cached`, cached keys belong to the
    segment of the first new one.
    """
    if cached is None:
        return torch.cat([given[:, :1].expand(-1, past), given], dim=1)
    if given is not None:
        return torch.cat([torch.where(cached == ANY_SEGMENT, given[:, :1], cached), given], dim=1)
    last = cached[:, -1:]
    # A row of nothing but padding has not begun.
    last = torch.where(last == PADDING_SEGMENT, ANY_SEGMENT, last)
    return torch.cat([cached, last.expand(-1, t)], dim=1)


def attention_mask(
    sequence: Sequence, state: State
) -> tuple[Bool[Tensor, "b 1 t s"] | None, dict[str, Tensor], Int[Tensor, "b t"]]:
    """Attention mask over cached and new keys, restricted to the segment of each query.

    Returns:
        The mask (None: causal is enough), the segments of all keys where rows have segments (`shared` of the next
        state), and the index in this sequence at which the segment of each position starts (-1: in the cache).
    """
    b, t = sequence.ids.shape
    past = cached_length(state)
    steps = torch.arange(t, device=sequence.ids.device)
    shared, mask, segment_start = {}, None, torch.full((b, t), -1, device=steps.device)
    cached, given = state.shared.get("segments"), sequence.segments
    if cached is not None or given is not None:
        shared["segments"] = segments = extend_segments(cached, given, past, t)  # b past+t
        new = segments[:, past:]
        previous = segments[:, past - 1 : -1] if past else torch.cat([new[:, :1], new[:, :-1]], dim=1)
        segment_start = torch.where(new != previous, steps, -1).cummax(dim=1).values
        mask = segments[:, past:, None] == segments[:, None, :]
    if (past and t > 1) or mask is not None or sequence.attention_mask is not None:
        allowed = torch.arange(past + t, device=steps.device) <= (past + steps)[:, None]
        if sequence.attention_mask is not None:
            allowed = torch.cat([sequence.attention_mask.new_ones(b, t, past), sequence.attention_mask], dim=2)
        mask = (allowed.expand(b, t, -1) if mask is None else mask & allowed)[:, None]
    return mask, shared, segment_start


def window_mask(
    mask: Bool[Tensor, "b 1 t s"] | None, sequence: Sequence, state: State, window: int
) -> Bool[Tensor, "b 1 t s"] | None:
    """Restrict a mask (None: causal) to the last `window` positions of each query, its own among them."""
    b, t = sequence.ids.shape
    past = cached_length(state)
    if past + t <= window:
        return mask
    keys = torch.arange(past + t, device=sequence.ids.device)
    own = keys[past:, None]
    near = keys > own - window
    return (near & (keys <= own)).expand(b, 1, -1, -1) if mask is None else near & mask
