"""Log-probabilities of given replies: the prompt is read once, the replies as batches that continue its state."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmrnn.data.collate import IMAGE, Collator, PreparedSample
from mmrnn.inference.dialogue import PLACEHOLDER
from mmrnn.inference.generate import prefill
from mmrnn.inference.text_stream import common_length
from mmrnn.model.vlm import VLM
from mmrnn.prompts import PrefixLM, TokenizedSample, tokenize, truncate
from mmrnn.types import IGNORE, Batch, Sample, Span, State, Tokenizer, Turn
from mmrnn.types import Sequence as Tokens

MAX_STEPS = 512
"""Positions of a reply that are read at once: their logits are kept meanwhile."""


@dataclass(frozen=True)
class Score:
    """Log-probabilities of a reply, given the prompt.

    Attributes:
        ids: tokens of the reply, those that end the turn last.
        log_probs: natural logarithm of the probability of each.
        greedy: for each, it is the most likely one.
        num_end: tokens that only end the turn; one that holds the end of the text, too, is no such token.
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    greedy: tuple[bool, ...]
    num_end: int

    def sum(self, *, end: bool = True) -> float:
        """Return the log-probability of the reply; `end`: the end of the turn is counted."""
        return sum(self.log_probs[: self._count(end)])

    def mean(self, *, end: bool = True) -> float:
        """Return the log-probability per token; `end`: the end of the turn is counted."""
        return self.sum(end=end) / self._count(end)

    def is_greedy(self, *, end: bool = True) -> bool:
        """Check whether greedy decoding gives the reply; `end`: its end, too."""
        return all(self.greedy[: self._count(end)])

    def _count(self, end: bool) -> int:
        return len(self.ids) - (0 if end else self.num_end)


class TokenScores(NamedTuple):
    """Log-probabilities of tokens, and for each whether it is the most likely one."""

    log_probs: tuple[float, ...]
    greedy: tuple[bool, ...]


class Written(NamedTuple):
    """A whole dialogue as training writes it.

    Attributes:
        row: its tokens.
        end: position after the text of the reply, where only the end of the turn follows.
    """

    row: TokenizedSample
    end: int


@torch.no_grad()
def score(
    model: VLM, collator: Collator, sample: Sample, candidates: Sequence[str], *, batch_size: int = 16
) -> list[Score]:
    """Return the log-probabilities of candidate replies, each equal to that of one pass over the whole dialogue.

    What generation would be given is not scored. Where the tokenizer merges its end with a reply, the prompt is cut
    before the merged token, in the same place for all candidates.

    Args:
        model: in evaluation mode.
        collator: for generation.
        sample: ends with an empty reply.
        candidates: at least one; none is empty.
        batch_size: number of candidates that are read at once.

    Raises:
        ImageError: an image cannot be opened.
        ValueError: there are no candidates, one is empty, `batch_size` is below 1, or model or prompt cannot score.
    """
    _check(model, collator, candidates, batch_size)
    asked = collator.prepare(sample)
    begun, written = _write(collator, sample, asked.row, candidates)
    start = max(begun, min(common_length(asked.row.ids, each.row.ids) for each in written))
    if not start:
        raise ValueError("nothing is in front of the reply, so that its first token has no probability; ask more")
    for text, each in zip(candidates, written, strict=True):
        if each.end <= start:
            raise ValueError(f"the candidate {text!r} has no token of text; leave it out")
    context = collator.assemble([PreparedSample(truncate(written[0].row, start), asked.inputs)])
    replies = [each.row.ids[start:] for each in written]
    return [
        Score(tuple(reply), found.log_probs, found.greedy, len(each.row.ids) - each.end)
        for each, reply, found in zip(
            written, replies, score_tokens(model, context, replies, batch_size=batch_size), strict=True
        )
    ]


@torch.no_grad()
def score_tokens(
    model: VLM,
    contexts: Batch,
    replies: Sequence[Sequence[int]],
    rows: Sequence[int] | None = None,
    *,
    batch_size: int = 16,
) -> list[TokenScores]:
    """Return the log-probabilities of given tokens, which continue the rows of a batch; every row is read once.

    Args:
        model: in evaluation mode.
        contexts: for generation, on any device.
        replies: at least one token each.
        rows: of `contexts` that each reply continues; None: all continue the first.
        batch_size: number of replies that are read at once.

    Raises:
        ValueError: a reply has no token.
    """
    for index, reply in enumerate(replies):
        if not len(reply):
            raise ValueError(f"reply {index + 1} of {len(replies)} has no token, so that there is nothing to score")
    last, state = prefill(model, contexts.to(next(model.parameters()).device))
    rows = [0] * len(replies) if rows is None else rows
    scores: dict[int, TokenScores] = {}
    # By length, so that little is padded.
    order = sorted(range(len(replies)), key=lambda index: len(replies[index]))
    for first in range(0, len(order), batch_size):
        indices = order[first : first + batch_size]
        chosen = torch.tensor([rows[index] for index in indices], device=last.device)
        read = _read(model, last[chosen], state.select(chosen), [replies[index] for index in indices])
        scores.update(zip(indices, read, strict=True))
    return [scores[index] for index in range(len(replies))]


def _check(model: VLM, collator: Collator, candidates: Sequence[str], batch_size: int) -> None:
    if isinstance(candidates, str) or not candidates:
        raise ValueError(f"candidates ({candidates!r}) must be a list of at least one reply")
    for index, text in enumerate(candidates):
        if not text.strip():
            raise ValueError(f"candidate {index + 1} of {len(candidates)} is empty ({text!r}); leave it out")
    if batch_size < 1:
        raise ValueError(f"batch_size ({batch_size}) must be at least 1")
    if not model.backbone.generates:
        raise ValueError(f"{type(model.backbone).__name__} has no head, so replies have no probability")
    if isinstance(collator.prompt, PrefixLM):
        raise ValueError("PrefixLM writes words of the reply in place of the question; take a prompt for dialogues")


def _write(
    collator: Collator, sample: Sample, asked: TokenizedSample, candidates: Sequence[str]
) -> tuple[int, list[Written]]:
    """First position of the span that holds the reply, and the dialogue with each reply.

    The images are those of the prompt, so that they are opened once.
    """

    def spans(reply: str) -> list[Span]:
        found = collator.spans(replace(sample, turns=(*sample.turns[:-1], Turn("assistant", reply))))
        while found and found[-1].mark is not None:
            found.pop()
        if not found or not found[-1].target:
            raise ValueError(f"{type(collator.prompt).__name__} writes no reply at the end; take another prompt")
        return found

    def tokens(of: list[Span]) -> TokenizedSample:
        return tokenize(of, collator.tokenizer, [span.layout for span in asked.image_spans], modality=IMAGE)

    *before, whole = spans(PLACEHOLDER)
    _, found, behind = whole.text.rpartition(PLACEHOLDER)
    if not found:
        raise ValueError(f"{type(collator.prompt).__name__} leaves the reply out; take another prompt")
    start, written = len(tokens(before).ids), []
    for text in candidates:
        *own, whole = spans(text)
        if own != before:
            raise ValueError("the prompt writes other text before one reply than before another; take another prompt")
        row, alone = tokens([*own, whole]), tokens([*own, Span(whole.text.removesuffix(behind))]).ids
        written.append(Written(row, _text_end(row.ids, alone, start, collator.tokenizer)))
    return start, written


def _text_end(ids: list[int], alone: list[int], start: int, tokenizer: Tokenizer) -> int:
    """Position after the text of a reply.

    Args:
        ids: of the whole dialogue.
        alone: of the dialogue without the end of the turn.
        start: first position of the span that holds the reply.
    """
    if ids[: len(alone)] == alone:
        return len(alone)
    # A token holds the end of the text and the beginning of what ends the turn.
    end, shown = len(ids), tokenizer.decode(alone[start:]).rstrip()
    while end > start and tokenizer.decode(ids[start : end - 1]).startswith(shown):
        end -= 1
    return end


def _read(model: VLM, last: Tensor, state: State, replies: Sequence[Sequence[int]]) -> Iterator[TokenScores]:
    """Yield the scores of the tokens of each reply.

    Args:
        last: hidden state of the last position of each context (`b d`).
        state: after the contexts.
    """
    rows = [torch.tensor(reply, device=last.device) for reply in replies]
    targets = pad_sequence(rows, batch_first=True, padding_value=IGNORE)
    steps = targets.shape[1] - 1  # nothing is read of the padding, which comes last, nor of the last token
    inputs = targets[:, :-1].clamp(min=0)
    found = [_predicted(model, last[:, None], targets[:, :1])]
    # A mask says what is context from the whole sequence, so that it cannot mask the rest of one: token by token.
    size = 1 if model.mask is not None and not model.mask.causal else MAX_STEPS
    for start in range(0, steps, size):
        out, state = model.run_backbone(Tokens(inputs[:, start : start + size]), state)
        found.append(_predicted(model, out, targets[:, start + 1 : start + 1 + size]))
    log_probs, greedy = (torch.cat(parts, dim=1).tolist() for parts in zip(*found, strict=True))
    for reply, values, best in zip(replies, log_probs, greedy, strict=True):
        yield TokenScores(tuple(values[: len(reply)]), tuple(best[: len(reply)]))


def _predicted(model: VLM, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of targets (`b t`), and which are the most likely tokens; of IGNORE they mean nothing."""
    valid = (targets != IGNORE).nonzero(as_tuple=True)
    logits, chosen = model.head(hidden[valid]).float(), targets[valid]
    log_probs = torch.zeros(targets.shape, device=targets.device)
    log_probs[valid] = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
    greedy = torch.zeros_like(targets, dtype=torch.bool)
    greedy[valid] = logits.argmax(-1) == chosen
    return log_probs, greedy
