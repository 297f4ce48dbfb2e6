"""Autoregressive generation over the state: the same loop for RNNs and transformers."""

from collections.abc import Callable, Generator, Iterator
from collections.abc import Sequence as Several

import torch
from torch import Tensor

from mmrnn.inference.beam_search import BeamSearch, search
from mmrnn.inference.reply import Token, check_log_probs, make_tokens
from mmrnn.inference.sampler import Sampler, choose_tokens, samplers_of_rows, seeded_generators
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
        ValueError: the prompt is empty, `prefill_chunk` is negative, the state belongs to other rows or another model,
            or prompts of different lengths continue it.
    """
    length = batch.sequence.ids.shape[1]
    if not length:
        raise ValueError("the prompt is empty; give at least one token, with a state too")
    if prefill_chunk < 0:
        raise ValueError(f"prefill_chunk ({prefill_chunk}) must be a number of positions; 0 is one chunk")
    if state is not None and _is_padded(batch.sequence) and not _is_initial(model, state):
        raise ValueError(
            "padding of prompts of different lengths would come between a state and the prompt that continues it; read "
            "each row alone, and join the states with `State.cat`"
        )
    sequence = model.embed(batch)
    start, hidden = 0, None
    while start < length:
        stop = _chunk_end(sequence, start + prefill_chunk) if prefill_chunk else length
        hidden, state = model.run_backbone(sequence.slice(start, stop), state)
        start = stop
    return hidden[:, -1], state


def _is_padded(sequence: Sequence) -> bool:
    segments = sequence.segments
    return segments is not None and bool((segments != segments[:, -1:]).any())


def _is_initial(model: VLM, state: State) -> bool:
    """Nothing has been read yet."""
    initial = model.backbone.state(state.rows).tensors
    return state.tensors.keys() == initial.keys() and all(
        torch.equal(value.to(initial[name]), initial[name]) for name, value in state.tensors.items()
    )


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
    sampler: Sampler | Several[Sampler] | None = None,
    log_probs: int | None = None,
    state: State | None = None,
    prefill_chunk: int = 0,
) -> Iterator[dict[int, Token]]:
    """Yield the next token of every unfinished row: row -> token, a dictionary for each step.

    Args:
        model: any.
        batch: prompts; where lengths differ, padded on the left and marked by `segments`.
        max_new_tokens: of a reply; 0: no tokens.
        finished: True for the ids of a reply that is complete, its end token included; None: replies end at
            `max_new_tokens`.
        sampler: choice of the next token, of all rows or of each; a reply does not depend on the other rows. None: the
            most likely one.
        log_probs: number of most likely tokens to give with each, with log-probabilities; None: no log-probabilities.
        state: to continue from; None: the initial state.
        prefill_chunk: positions of a chunk of the prompt; 0: one chunk.

    Raises:
        ValueError: an empty prompt, a negative number, a state of other rows or of another model, or samplers and rows
            that differ in number.
    """
    samplers = samplers_of_rows(sampler, len(batch.sequence.ids))
    check_log_probs(log_probs)
    check_max_new_tokens(max_new_tokens)
    if not samplers or not max_new_tokens:
        return
    last, state = prefill(model, batch, state, prefill_chunk)
    options = {"max_new_tokens": max_new_tokens, "finished": finished, "sampler": samplers, "log_probs": log_probs}
    yield from decode(model, last, state, **options)


@torch.no_grad()
def decode(
    model: VLM,
    last: Tensor,
    state: State,
    *,
    max_new_tokens: int = 64,
    finished: Callable[[list[int]], bool] | None = None,
    sampler: Sampler | Several[Sampler] | None = None,
    log_probs: int | None = None,
) -> Generator[dict[int, Token], None, State]:
    """Yield the next tokens behind prompts that have been read, as `stream` does; its other arguments are the same.

    Args:
        last: hidden state of the last position of each prompt (`b d`).
        state: after the prompts.

    Returns:
        The state of the rows that were unfinished last, after all of their tokens but the last.
    """
    samplers = samplers_of_rows(sampler, len(last))
    generators = seeded_generators(samplers, last.device)
    replies: dict[int, list[int]] = {row: [] for row in range(len(last))}
    for step in range(max_new_tokens):
        logits = model.head(last)
        own = [samplers[row] for row in replies], [generators[row] for row in replies], [*replies.values()]
        ids = choose_tokens(logits, *own)
        tokens = dict(zip(replies, make_tokens(ids, logits, log_probs), strict=True))
        for row, token in tokens.items():
            replies[row].append(token.id)
        yield tokens
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


def generate(model: VLM, batch: Batch, *, beams: BeamSearch | None = None, **options) -> list[list[int]]:
    """Return the reply to every row of a batch of prompts as ids.

    Args:
        model: any.
        batch: prompts.
        beams: search for the most likely reply; None: token by token.
        options: as of `stream`; with `beams` without `sampler` and `log_probs`.

    Raises:
        ValueError: as of `stream`, or beams are to be sampled.
    """
    if beams is not None:
        if any(options.pop(name, None) is not None for name in ("sampler", "log_probs")):
            raise ValueError("beams are not sampled and keep no log-probabilities; leave out sampler and log_probs")
        return _beam_search(model, batch, beams, **options)
    replies: list[list[int]] = [[] for _ in range(len(batch.sequence.ids))]
    for tokens in stream(model, batch, **options):
        for row, token in tokens.items():
            replies[row].append(token.id)
    return replies


@torch.no_grad()
def _beam_search(
    model: VLM,
    batch: Batch,
    beams: BeamSearch,
    *,
    max_new_tokens: int = 64,
    finished: Callable[[list[int]], bool] | None = None,
    state: State | None = None,
    prefill_chunk: int = 0,
) -> list[list[int]]:
    check_max_new_tokens(max_new_tokens)
    if not len(batch.sequence.ids) or not max_new_tokens:
        return [[] for _ in batch.sequence.ids]

    def step(ids: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, state = model.run_backbone(Sequence(ids[:, None]), state)
        return model.head(hidden[:, -1]), state

    last, state = prefill(model, batch, state, prefill_chunk)
    return search(step, model.head(last), state, beams, max_new_tokens=max_new_tokens, finished=finished)
