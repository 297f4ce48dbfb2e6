"""Beam search: several beginnings of each reply are kept, and the most likely whole reply is returned."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from math import inf

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmrnn.inference.sampler import check_logits
from mmrnn.types import State

Step = Callable[[Int[Tensor, " b"], State], tuple[Float[Tensor, "b vocab"], State]]
"""Pass of a model over one token of each row: logits of the next one, and the state after it."""

MAX_PENALTY = 50
"""Largest length penalty, with which the power of every length is finite."""


@dataclass(frozen=True)
class BeamSearch:
    """Search for the most likely reply, with the names and the rule of transformers (`early_stopping=False`).

    BLIP-2 is evaluated with 5 beams (arXiv 2301.12597).

    Args:
        num_beams: beginnings of a reply that are kept.
        length_penalty: the log-probability of a reply of n tokens is divided by n to this power: a positive one prefers
            long replies, a negative one short ones.
        min_new_tokens: length of the shortest reply, without the token that ends it.

    Raises:
        ValueError: a value outside its range.
    """

    num_beams: int = 5
    length_penalty: float | int = 1.0
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("num_beams", self.num_beams, 1), ("min_new_tokens", self.min_new_tokens, 0)):
            if type(value) is not int or value < least:
                raise ValueError(f"{name} ({value!r}) must be a whole number from {least} on")
        penalty = self.length_penalty
        if type(penalty) not in (int, float) or not -MAX_PENALTY <= penalty <= MAX_PENALTY:
            raise ValueError(f"length_penalty ({penalty!r}) must lie between -{MAX_PENALTY} and {MAX_PENALTY}")

    def score(self, log_prob: float, length: int) -> float:
        """Return the score of a reply of `length` tokens, by which replies are compared."""
        return log_prob / length**self.length_penalty


@dataclass(frozen=True)
class Beam:
    """Beginning of a reply.

    Attributes:
        ids: its tokens.
        log_prob: of all of them.
        source: beam that its last token continues, as a row of the batch of beams; of the first one, the row itself.
    """

    ids: tuple[int, ...]
    log_prob: float
    source: int


@dataclass
class RowSearch:
    """Search for the reply of one row.

    Attributes:
        options: of the search.
        max_new_tokens: length at which every beam ends.
        finished: True for the ids of a reply that is complete; None: replies end at `max_new_tokens`.
        running: beams to be continued, the most likely one first; none: the search has ended.
        replies: the best complete replies with their scores, at most `num_beams`, the best one first.
    """

    options: BeamSearch
    max_new_tokens: int
    finished: Callable[[list[int]], bool] | None
    running: list[Beam]
    replies: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)

    def advance(self, candidates: Iterable[Beam], all_given: bool) -> bool:
        """Choose what is kept of the candidates for the next beams.

        Args:
            candidates: of one length, the most likely one first.
            all_given: there are no others.

        Returns:
            False where more candidates are needed; nothing has changed then.
        """
        running, ended, rank, wanted = [], [], 0, self.options.num_beams
        for beam in candidates:
            length = len(beam.ids)
            ends = self.finished is not None and self.finished([*beam.ids])
            if beam.log_prob == -inf or (ends and length <= self.options.min_new_tokens):
                continue
            if not ends and length < self.max_new_tokens:
                running.append(beam)
            # Candidates beyond the first ones only take the places of those that end.
            elif rank < wanted:
                ended.append((self.options.score(beam.log_prob, length), beam.ids))
            rank += 1
            if len(running) == wanted or (length == self.max_new_tokens and rank == wanted):
                break
        else:
            if not all_given:
                return False
        self.replies = sorted([*self.replies, *ended], key=lambda reply: -reply[0])[:wanted]
        if running and len(self.replies) == wanted:
            best = self.options.score(running[0].log_prob, len(running[0].ids))
            running = running if best > self.replies[-1][0] else []
        self.running = running
        return True


def search(
    step: Step,
    logits: Float[Tensor, "b vocab"],
    state: State,
    options: BeamSearch,
    *,
    max_new_tokens: int,
    finished: Callable[[list[int]], bool] | None = None,
) -> list[list[int]]:
    """Return the ids of the reply to every row.

    Args:
        step: pass of the model.
        logits: of the first token.
        state: after the prompt.
        options: of the search.
        max_new_tokens: of a reply.
        finished: as of `stream`.

    Raises:
        ValueError: a row of logits is not finite.
    """
    rows = [RowSearch(options, max_new_tokens, finished, [Beam((), 0.0, row)]) for row in range(len(logits))]
    while True:
        _advance([row for row in rows if row.running], logits, options.num_beams)
        beams = [beam for row in rows for beam in row.running]
        if not beams:
            return [[*row.replies[0][1]] if row.replies else [] for row in rows]
        sources, ids = (
            torch.tensor(values, device=logits.device)
            for values in ([beam.source for beam in beams], [beam.ids[-1] for beam in beams])
        )
        logits, state = step(ids, state.select(sources))


def _advance(rows: list[RowSearch], logits: Float[Tensor, "b vocab"], num_beams: int) -> None:
    """Advance every row by one token; its running beams are consecutive rows of the logits."""
    check_logits(logits)
    old = torch.tensor([beam.log_prob for row in rows for beam in row.running], device=logits.device)
    log_probs = logits.float().log_softmax(-1) + old[:, None]
    waiting, first = [], 0
    for row in rows:
        waiting.append((row, first))
        first += len(row.running)
    vocab = logits.shape[-1]
    # Enough unless most of the candidates of a beam end a reply.
    size = min(2 * num_beams, vocab)
    while waiting:
        top = log_probs.topk(size)
        best = [[*zip(*beam, strict=True)] for beam in zip(top.values.tolist(), top.indices.tolist(), strict=True)]
        waiting = [
            (row, first)
            for row, first in waiting
            if not row.advance(_candidates(row, first, best, size == vocab), size == vocab)
        ]
        size = min(4 * size, vocab)


def _candidates(row: RowSearch, first: int, best: list[list[tuple[float, int]]], all_given: bool) -> Iterator[Beam]:
    """Continuations of the beams of a row, the most likely one first.

    Args:
        row: whose beams are continued.
        first: place of the first of them.
        best: log-probabilities and ids of the most likely continuations of each place, the most likely one first.
        all_given: they are all continuations; otherwise none is known behind the last one of a beam.
    """

    def of(source: int, beam: Beam) -> Iterator[tuple[Beam, bool]]:
        for left, (log_prob, id) in zip(reversed(range(len(best[source]))), best[source], strict=True):
            yield Beam((*beam.ids, id), log_prob, source), not left

    each = (of(first + index, beam) for index, beam in enumerate(row.running))
    for beam, is_last in merge(*each, key=lambda item: -item[0].log_prob):
        yield beam
        if is_last and not all_given:
            return
