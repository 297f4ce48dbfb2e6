"""Autoregressive generation over the state: the same loop for RNNs and transformers."""

from collections.abc import Callable, Generator, Iterator
from collections.abc import Sequence as Several

import torch
from torch import Tensor

from mmrnn.inference.sampler import Sampler, TokenSampler, seeded_generators
from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, Sequence, State


def prefill(model: VLM, batch: Batch, state: State | None = None, prefill_chunk: int = 0) -> tuple[Tensor, State]:
    """Run the model over a prompt, in chunks that do not split an image.

    Args:
        model: any.
        batch: prompts, padded on the left.
        state: to continue from; None: the initial state.
        prefill_chunk: positions of a chunk; longer where it would split an image. 0: one chunk.

    Returns:
        Hidden state of the last position (`b d`), and the state after it.

    Raises:
        ValueError: the prompt is empty, `prefill_chunk` is negative, or the state belongs to other rows or another
            model.
    """
    length = batch.sequence.ids.shape[1]
    if not length:
        raise ValueError("the prompt is empty; give at least one token, with a state too")
    if prefill_chunk < 0:
        raise ValueError(f"prefill_chunk ({prefill_chunk}) must be a number of positions; 0 is one chunk")
    sequence = model.embed(batch)
    start, hidden = 0, None
    while start < length:
        stop = _chunk_end(sequence, start + prefill_chunk) if prefill_chunk else length
        hidden, state = model.run_backbone(sequence.slice(start, stop), state)
        start = stop
    return hidden[:, -1], state


def _chunk_end(sequence: Sequence, stop: int) -> int:
    """First position from `stop` on that is inside no image of any row."""
    length = sequence.ids.shape[1]
    while True:
        inside = [span.stop for span in sequence.image_spans if span.start < stop < span.stop]
        if not inside:
            return min(stop, length)
        stop = max(inside)


def check_max_new_tokens(max_new_tokens: int) -> None:
    """Check the length limit of a reply.

    Raises:
        ValueError: it is negative.
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens ({max_new_tokens}) must not be negative; 0 is an empty reply")


@torch.no_grad()
def stream(
    model: VLM,
    batch: Batch,
    *,
    max_new_tokens: int = 64,
    finished: Callable[[list[int]], bool] | None = None,
    sampler: TokenSampler | None = None,
    seeds: Several[int] | None = None,
    state: State | None = None,
    prefill_chunk: int = 0,
) -> Iterator[dict[int, int]]:
    """Yield the next token of every unfinished row: row -> id, a dictionary for each step.

    Args:
        model: any.
        batch: prompts; where lengths differ, padded on the left and marked by `segments`.
        max_new_tokens: of a reply; 0: no tokens.
        finished: True for the ids of a reply that is complete, its end token included; None: replies end at
            `max_new_tokens`.
        sampler: chooses the next token; None: the most likely one.
        seeds: of the random numbers of each row, so that a reply does not depend on the other rows; None: drawn from
            torch's default generator.
        state: to continue from; None: the initial state.
        prefill_chunk: positions of a chunk of the prompt; 0: one chunk.

    Raises:
        ValueError: an empty prompt, a negative number, a state of other rows or of another model, or seeds and rows
            that differ in number.
    """
    check_max_new_tokens(max_new_tokens)
    if not len(batch.sequence.ids) or not max_new_tokens:
        return
    last, state = prefill(model, batch, state, prefill_chunk)
    yield from decode(
        model, last, state, max_new_tokens=max_new_tokens, finished=finished, sampler=sampler, seeds=seeds
    )


@torch.no_grad()
def decode(
    model: VLM,
    last: Tensor,
    state: State,
    *,
    max_new_tokens: int = 64,
    finished: Callable[[list[int]], bool] | None = None,
    sampler: TokenSampler | None = None,
    seeds: Several[int] | None = None,
) -> Generator[dict[int, int], None, State]:
    """Yield the next tokens behind prompts that have been read, as `stream` does; its other arguments are the same.

    Args:
        last: hidden state of the last position of each prompt (`b d`).
        state: after the prompts.

    Returns:
        The state of the rows that were unfinished last, after all of their tokens but the last.
    """
    # Without a sampler nothing is drawn, and torch's default generator stays as it is.
    generators = None if sampler is None else seeded_generators(seeds, len(last), last.device)
    sampler = sampler or Sampler()
    replies: dict[int, list[int]] = {row: [] for row in range(len(last))}
    for step in range(max_new_tokens):
        ids = sampler(model.head(last), None if generators is None else [generators[row] for row in replies])
        for row, token in zip(replies, ids.tolist(), strict=True):
            replies[row].append(token)
        yield {row: reply[-1] for row, reply in replies.items()}
        active = [i for i, row in enumerate(replies) if finished is None or not finished(replies[row])]
        if not active or step + 1 == max_new_tokens:
            break
        if len(active) < len(replies):
            names = list(replies)
            replies = {names[i]: replies[names[i]] for i in active}
            keep = torch.tensor(active, device=ids.device)
            ids, state = ids[keep], state.select(keep)
        hidden, state = model.run_backbone(Sequence(ids[:, None]), state)
        last = hidden[:, -1]
    return state


def generate(model: VLM, batch: Batch, **options) -> list[list[int]]:
    """Return the reply to every row of a batch of prompts as ids; options as of `stream`."""
    replies: list[list[int]] = [[] for _ in range(len(batch.sequence.ids))]
    for tokens in stream(model, batch, **options):
        for row, token in tokens.items():
            replies[row].append(token)
    return replies
