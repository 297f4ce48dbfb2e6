"""What a token costs: beside the `rwkv` package, and after 1K to 24K tokens beside Llama with each cache."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from mmrnn.bench.peers import DEFAULT, LLAMA, OURS, RWKV, STATIC, Shape, after, cache, llama, one_token, package, rwkv6
from mmrnn.bench.timing import BenchConfig, Peaks, Row, Work, compare, nbytes

ROOM = 64
"""Tokens that a static cache has room for behind the context: more than there are rounds."""


@torch.no_grad()
def measure(effort: BenchConfig) -> Iterator[Row]:
    yield from beside_rwkv(effort)
    yield from over_context(effort)


def beside_rwkv(effort: BenchConfig) -> Iterator[Row]:
    shape, stream = Shape.of(effort), Peaks.measure(effort).stream
    for dtype in ("fp32", "bf16"):
        model, sides = rwkv6(shape, dtype), {}
        effort.offer(sides, RWKV, lambda model=model, dtype=dtype: their_token(package(model, dtype)))
        sides[OURS] = one_token(model, after(model, 8))
        # Of the embedding one row is read.
        read = nbytes(model) - model.embedding.weight.nbytes
        for row in compare("decode", f"{shape} {dtype}, a token", sides, effort):
            yield Row(**{**vars(row), "share": read / row.seconds / stream})


def their_token(model: Any) -> Work:
    now = [model.forward([5] * 8, None)[1]]

    def work() -> None:
        _, now[0] = model.forward([5], now[0])

    return work


def over_context(effort: BenchConfig) -> Iterator[Row]:
    shape = Shape.of(effort, vocab=32000)
    ours, theirs = rwkv6(shape), effort.model(LLAMA, lambda: llama(shape))
    for context in (16, 64) if effort.quick else (1024, 4096, 8192, 16384, 24576):
        state = after(ours, context)
        sides, memory = {}, {}
        for kind in (DEFAULT, STATIC) if theirs is not None else ():
            sides[kind], memory[kind] = llama_token(theirs, kind, context)
        sides[OURS], memory[OURS] = one_token(ours, state), state.nbytes / 1e6
        case = f"{shape} fp32, a token after {context}"
        same = {"what": dict.fromkeys(sides, "state or cache"), "context": dict.fromkeys(sides, context)}
        yield from compare("decode", case, sides, effort, megabytes=memory, **same)


def llama_token(model: nn.Module, kind: str, context: int) -> tuple[Callable[[], object], float]:
    kept, megabytes = cache(model, kind, context, ROOM)
    position = [context]

    def work() -> None:
        place = torch.tensor([[position[0]]])
        model(input_ids=torch.tensor([[5]]), past_key_values=kept, use_cache=True, position_ids=place)
        position[0] += 1

    return work, megabytes
