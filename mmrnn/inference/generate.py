"""Autoregressive generation over the state: the same loop for RNNs and transformers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, Sequence, State


@dataclass(frozen=True)
class Sampler:
    """Sampling of the next token.

    Args:
        temperature: divides the logits; 0: take the most likely token.
        top_k: sample among the k most likely tokens; 0: all.
        top_p: sample among the most likely tokens that together have this probability (nucleus sampling, arXiv
            1904.09751).
        generator: of random numbers; None: torch's default.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    generator: torch.Generator | None = None

    def __call__(self, logits: Float[Tensor, "b vocab"]) -> Int[Tensor, " b"]:
        """Draw an id for every row."""
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = logits.float() / self.temperature
        if self.top_k:
            least = logits.topk(min(self.top_k, logits.shape[-1])).values[:, -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        if self.top_p < 1:
            ordered, index = logits.sort(descending=True)
            probability = ordered.softmax(-1)
            # A token is kept while those before it do not reach top_p, so the most likely one always is.
            drop = probability.cumsum(-1) - probability >= self.top_p
            logits = logits.masked_fill(drop.scatter(-1, index, drop), float("-inf"))
        return torch.multinomial(logits.softmax(-1), 1, generator=self.generator).squeeze(-1)


def prefill(model: VLM, batch: Batch, state: State | None = None, prefill_chunk: int = 0) -> tuple[Tensor, State]:
    """Run the model over a prompt, in chunks that do not split an image.

    Args:
        model: any.
        batch: prompts, padded on the left.
        state: to continue from; None: the initial state.
        prefill_chunk: positions of a chunk; longer where it would split an image. 0: one chunk.

    Returns:
        Hidden state of the last position (`b d`), and the state after it.
    """
    sequence = model.embed(batch)
    length = sequence.ids.shape[1]
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
    """Yield the next token of every unfinished row: row -> id, a dictionary for each step.

    Args:
        model: any.
        batch: prompts; where lengths differ, padded on the left and marked by `segments`.
        max_new_tokens: of a reply.
        finished: True for the ids of a reply that is complete, its end token included; None: replies end at
            `max_new_tokens`.
        sampler: draws ids (`b`) from logits (`b vocab`); None: the most likely one.
        state: to continue from; None: the initial state.
        prefill_chunk: positions of a chunk of the prompt; 0: one chunk.
    """
    sampler = sampler or Sampler()
    last, state = prefill(model, batch, state, prefill_chunk)
    replies: dict[int, list[int]] = {row: [] for row in range(len(last))}
    for step in range(max_new_tokens):
        ids = sampler(model.head(last))
        for row, token in zip(replies, ids.tolist(), strict=True):
            replies[row].append(token)
        yield {row: reply[-1] for row, reply in replies.items()}
        active = [i for i, row in enumerate(replies) if finished is None or not finished(replies[row])]
        if not active or step + 1 == max_new_tokens:
            return
        if len(active) < len(replies):
            rows = list(replies)
            replies = {rows[i]: replies[rows[i]] for i in active}
            keep = torch.tensor(active, device=ids.device)
            ids, state = ids[keep], state.select(keep)
        hidden, state = model.run_backbone(Sequence(ids[:, None]), state)
        last = hidden[:, -1]


def generate(model: VLM, batch: Batch, **options) -> list[list[int]]:
    """Return the reply to every row of a batch of prompts as ids; options as of `stream`."""
    replies: list[list[int]] = [[] for _ in range(len(batch.sequence.ids))]
    for tokens in stream(model, batch, **options):
        for row, token in tokens.items():
            replies[row].append(token)
    return replies
