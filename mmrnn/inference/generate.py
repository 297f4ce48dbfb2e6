"""Replies, token by token, over the state: the same loop for an RNN and a transformer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, Sequence, State


@dataclass(frozen=True)
class Sampler:
    """How the next token is drawn. A temperature of 0 takes the likeliest.

    Args:
        top_k: draw among the likeliest k only; 0 means all.
        top_p: draw among the likeliest that together have this probability (nucleus sampling, arXiv 1904.09751).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    generator: torch.Generator | None = None

    def __call__(self, logits: Float[Tensor, "b vocab"]) -> Int[Tensor, " b"]:
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = logits.float() / self.temperature
        if self.top_k:
            least = logits.topk(min(self.top_k, logits.shape[-1])).values[:, -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        if self.top_p < 1:
            ordered, index = logits.sort(descending=True)
            chance = ordered.softmax(-1)
            # A token stays as long as those before it do not reach top_p, so the likeliest always stays.
            drop = chance.cumsum(-1) - chance >= self.top_p
            logits = logits.masked_fill(drop.scatter(-1, index, drop), float("-inf"))
        return torch.multinomial(logits.softmax(-1), 1, generator=self.generator).squeeze(-1)


def prefill(model: VLM, batch: Batch, state: State | None = None, prefill_chunk: int = 0) -> tuple[Tensor, State]:
    """Read a prompt, in pieces of about `prefill_chunk` positions (0: at once); no image is cut.

    Returns:
        The last hidden state of every row (b d), and the state to go on from.
    """
    sequence = model.embed(batch)
    length = sequence.ids.shape[1]
    start, hidden = 0, None
    while start < length:
        stop = _cut(sequence, start + prefill_chunk) if prefill_chunk else length
        hidden, state = model.run_backbone(sequence.slice(start, stop), state)
        start = stop
    return hidden[:, -1], state


def _cut(sequence: Sequence, stop: int) -> int:
    """The first place from `stop` on at which no image of any row is cut."""
    length = sequence.ids.shape[1]
    while True:
        inside = [block.stop for block in sequence.image_spans if block.start < stop < block.stop]
        if not inside:
            return min(stop, length)
        stop = max(inside)


@torch.no_grad()
def stream(
    model: VLM,
    batch: Batch,
    *,
    max_new_tokens: int = 64,
    finished: Callable[[list[int]], bool] | None = None,
    sampler: Callable[[Tensor], Tensor] | None = None,
    state: State | None = None,
    prefill_chunk: int = 0,
) -> Iterator[dict[int, int]]:
    """The next token of every row that is not finished: row -> id, one dictionary a step.

    Args:
        batch: prompts; of different lengths only when padded on the left and marked by `segments`.
        max_new_tokens: of a reply.
        sampler: draws ids (b) from logits (b vocab); None takes the likeliest.
        finished: tells from the ids of a reply whether it has ended; the token that ends it is part of the reply.
        state: what was read before the prompt.
        prefill_chunk: read the prompt in pieces of about so many positions (0: at once).
    """
    sampler = sampler or Sampler()
    last, state = prefill(model, batch, state, prefill_chunk)
    replies: dict[int, list[int]] = {row: [] for row in range(len(last))}
    for step in range(max_new_tokens):
        ids = sampler(model.head(last))
        for row, token in zip(replies, ids.tolist(), strict=True):
            replies[row].append(token)
        yield {row: reply[-1] for row, reply in replies.items()}
        going = [i for i, row in enumerate(replies) if finished is None or not finished(replies[row])]
        if not going or step + 1 == max_new_tokens:
            return
        if len(going) < len(replies):
            rows = list(replies)
            replies = {rows[i]: replies[rows[i]] for i in going}
            keep = torch.tensor(going, device=ids.device)
            ids, state = ids[keep], state.select(keep)
        hidden, state = model.run_backbone(Sequence(ids[:, None]), state)
        last = hidden[:, -1]


def generate(model: VLM, batch: Batch, **options) -> list[list[int]]:
    """The reply to every row of a batch of prompts, as ids; options are those of `stream`."""
    replies: list[list[int]] = [[] for _ in range(len(batch.sequence.ids))]
    for tokens in stream(model, batch, **options):
        for row, token in tokens.items():
            replies[row].append(token)
    return replies
