"""Log-probabilities of given replies: the prompt is read once, the replies as batches that continue its state."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmrnn.data.collate import IMAGE, Collator, DroppedSampleError, PreparedSample
from mmrnn.data.image import ImageError
from mmrnn.inference.generate import prefill
from mmrnn.inference.text_stream import common_length
from mmrnn.model.vlm import VLM
from mmrnn.prompts import PrefixLM, TokenizedSample, tokenize, truncate
from mmrnn.types import IGNORE, Sample, Span, State, Turn
from mmrnn.types import Sequence as Tokens

PROBE = "\ue000"
"""Reply of a private character, whose place in the prompt shows what the prompt writes behind a reply."""


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


class Written(NamedTuple):
    """A whole dialogue as training writes it.

    Attributes:
        row: its tokens.
        start: first position of the span that holds the reply.
        end: position after the text of the reply, where only the end of the turn follows.
    """

    row: TokenizedSample
    start: int
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
    try:
        asked = collator.prepare(sample)
    except DroppedSampleError as error:
        raise ImageError(str(error), error.reason) from error
    written = [_write(collator, sample, text, asked.row) for text in candidates]
    first = written[0]
    for each in written:
        if each.start != first.start or each.row.ids[: each.start] != first.row.ids[: first.start]:
            raise ValueError("the prompt writes other text before one reply than before another; take another prompt")
    start = max(first.start, min(common_length(asked.row.ids, each.row.ids) for each in written))
    if not start:
        raise ValueError("nothing is in front of the reply, so that its first token has no probability; ask more")
    for text, each in zip(candidates, written, strict=True):
        if each.end <= start:
            raise ValueError(f"the candidate {text!r} has no token of text; leave it out")
    context = collator.assemble([PreparedSample(truncate(first.row, start), asked.inputs)])
    last, state = prefill(model, context.to(next(model.parameters()).device))
    scores: dict[int, Score] = {}
    # By length, so that little is padded.
    order = sorted(range(len(written)), key=lambda index: len(written[index].row.ids))
    for first_index in range(0, len(order), batch_size):
        indices = order[first_index : first_index + batch_size]
        replies = [written[index].row.ids[start:] for index in indices]
        for place, ids, read in zip(indices, replies, _read(model, last, state, replies), strict=True):
            num_end = len(written[place].row.ids) - written[place].end
            scores[place] = Score(tuple(ids), *read, num_end)
    return [scores[index] for index in range(len(written))]


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


def _write(collator: Collator, sample: Sample, text: str, asked: TokenizedSample) -> Written:
    """Dialogue with a reply. The images are those of the prompt, so that they are opened once."""

    def spans(reply: str) -> list[Span]:
        found = collator.spans(replace(sample, turns=(*sample.turns[:-1], Turn("assistant", reply))))
        if not found or not found[-1].target:
            raise ValueError(f"{type(collator.prompt).__name__} writes no reply at the end; take another prompt")
        return found

    def tokens(of: list[Span]) -> TokenizedSample:
        return tokenize(of, collator.tokenizer, [span.layout for span in asked.image_spans], modality=IMAGE)

    *before, whole = spans(text)
    behind = spans(PROBE)[-1].text.rpartition(PROBE)
    if not behind[1]:
        raise ValueError(f"{type(collator.prompt).__name__} leaves the reply out; take another prompt")
    row, start = tokens([*before, whole]), len(tokens(before).ids)
    alone = tokens([*before, Span(whole.text.removesuffix(behind[2]))]).ids
    if row.ids[: len(alone)] == alone:
        return Written(row, start, len(alone))
    # A token holds the end of the text and the beginning of what ends the turn.
    decode, end = collator.tokenizer.decode, len(row.ids)
    shown = decode(alone[start:]).rstrip()
    while end > start and decode(row.ids[start : end - 1]).startswith(shown):
        end -= 1
    return Written(row, start, end)


def _read(
    model: VLM, last: Tensor, state: State, replies: list[list[int]]
) -> Iterator[tuple[tuple[float, ...], tuple[bool, ...]]]:
    """Yield the log-probabilities of the tokens of each reply, and which of them are the most likely ones.

    Args:
        last: hidden state of the last position of the prompt (`1 d`).
        state: after the prompt, of one row.
    """
    rows = [torch.tensor(reply, device=last.device) for reply in replies]
    targets = pad_sequence(rows, batch_first=True, padding_value=IGNORE)
    hidden = [last.expand(len(rows), -1)[:, None]]
    steps = targets.shape[1] - 1  # nothing is read of the padding, which comes last, nor of the last token
    inputs, state = targets[:, :-1].clamp(min=0), state.select(targets.new_zeros(len(rows)))
    # A mask says what is context from the whole sequence, so that it cannot mask the rest of one: token by token.
    size = 1 if model.mask is not None and not model.mask.causal else max(steps, 1)
    for start in range(0, steps, size):
        out, state = model.run_backbone(Tokens(inputs[:, start : start + size]), state)
        hidden.append(out)
    valid = targets != IGNORE
    logits = model.head(torch.cat(hidden, dim=1)[valid]).float()
    chosen = targets[valid]
    log_probs = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
    sizes = [len(row) for row in rows]
    found = zip(log_probs.split(sizes), (logits.argmax(-1) == chosen).split(sizes), strict=True)
    for values, greedy in found:
        yield tuple(values.tolist()), tuple(greedy.tolist())
