"""Replies to questions whose images lie some way back: text stands between the images and what follows them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmrnn.inference.assistant import Assistant
from mmrnn.inference.dialogue import DialogueRow, without_reply
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.generate import decode, prefill
from mmrnn.inference.reader import DialogueReader, stack
from mmrnn.types import Batch, ImageSpan, Sample, State
from mmrnn.types import Sequence as Tokens

CHUNK = 512
"""Positions of the text that are read at once."""


def question_row(assistant: Assistant, sample: Sample) -> DialogueRow:
    """Return a question as a row of ids, with its images opened and prepared.

    Raises:
        ImageError: an image cannot be opened.
        ValueError: it shows none, or as of `Assistant.answer`.
    """
    row = assistant.reader.sample_row(without_reply(sample))
    if not row.spans:
        raise ValueError("the question shows no image")
    return row


@torch.no_grad()
def delayed_replies(
    assistant: Assistant,
    rows: Sequence[DialogueRow],
    distances: Sequence[int],
    text: Sequence[int],
    *,
    max_new_tokens: int = 64,
) -> list[list[str]]:
    """Return the replies to questions behind every length of a text, which stands directly behind their last image.

    The images are read once: the state behind them is continued over the text, from each distance to the next one.

    Args:
        assistant: that replies.
        rows: of `question_row`.
        distances: numbers of tokens between the last image and what follows it, in ascending order.
        text: ids of the text, as many as the largest distance.
        max_new_tokens: of a reply.

    Raises:
        ValueError: the model reads its prompt as a whole, or the text is shorter than a distance.
    """
    reader = assistant.reader
    if not reader.causal:
        raise ValueError("the model reads its prompt as a whole, so that no state behind an image can be continued")
    if max(distances, default=0) > len(text):
        raise ValueError(f"distances go up to {max(distances):,} tokens, and the text has {len(text):,}")
    cuts = [max(map(reader.behind, row.spans)) for row in rows]
    rests = [row.ids[cut:] for row, cut in zip(rows, cuts, strict=True)]
    found, read = [], 0
    with eval_mode(assistant.model):
        state = _read_images(reader, rows, cuts)
        for distance in distances:
            if distance > read:
                ids = torch.tensor([text[read:distance]], device=reader.device).expand(len(rows), -1)
                _, state = prefill(reader.model, Batch(Tokens(ids)), state, CHUNK)
                read = distance
            found.append(_replies(assistant, rests, state, max_new_tokens))
    return found


def _read_images(reader: DialogueReader, rows: Sequence[DialogueRow], cuts: Sequence[int]) -> State:
    """State behind the last image of every row; rows that are cut at one position are read together."""
    states: dict[int, State] = {}
    for places in _groups(cuts):
        spans: list[ImageSpan] = []
        visual: dict[str, list[Tensor]] = {}
        for number, place in enumerate(places):
            for span, item in zip(rows[place].spans, rows[place].inputs, strict=True):
                spans.append(replace(span, sample=number))
                visual.setdefault(item.modality, []).append(reader.encode(item))
        ids = torch.tensor([rows[place].ids[: cuts[place]] for place in places], device=reader.device)
        tokens = {name: stack(each) for name, each in visual.items()}
        _, state = prefill(reader.model, Batch(Tokens(ids, tuple(spans)), visual=tokens))
        states |= {
            place: state.select(torch.tensor([number], device=reader.device)) for number, place in enumerate(places)
        }
    return State.cat([states[place] for place in range(len(rows))])


def _replies(assistant: Assistant, rests: Sequence[Sequence[int]], state: State, max_new_tokens: int) -> list[str]:
    """Replies behind the rest of every row; rests of one length are read together."""
    reader, found = assistant.reader, [""] * len(rests)
    for places in _groups([*map(len, rests)]):
        ids = torch.tensor([rests[place] for place in places], device=reader.device)
        own = state.select(torch.tensor(places, device=reader.device))
        last, own = prefill(reader.model, Batch(Tokens(ids)), own)
        replies: list[list[int]] = [[] for _ in places]
        options = {"max_new_tokens": max_new_tokens, "finished": assistant.stop.finished}
        for tokens in decode(reader.model, last, own, **options):
            for row, token in tokens.items():
                replies[row].append(token.id)
        for place, reply in zip(places, replies, strict=True):
            found[place] = assistant.stop.clean(assistant.tokenizer.decode(reply))
    return found


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Places of equal sizes together."""
    found: dict[int, list[int]] = {}
    for place, size in enumerate(sizes):
        found.setdefault(size, []).append(place)
    return [*found.values()]
