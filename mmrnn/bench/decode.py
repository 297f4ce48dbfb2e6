"""Decoding of one token: against the `rwkv` package, and over the context length against Llama with each cache."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mmrnn.bench.peers import (
    DEFAULT_CACHE,
    LLAMA,
    MMRNN,
    RWKV,
    STATIC_CACHE,
    Shape,
    decode_token,
    filled_cache,
    make_llama,
    make_rwkv6,
    make_rwkv_package,
    state_after,
)
from mmrnn.bench.timing import BenchConfig, Peaks, Row, Workload, compare

ROOM = 64
"""Tokens that a static cache has memory for after the context: more than there are rounds."""


@torch.no_grad()
def measure(config: BenchConfig) -> Iterator[Row]:
    """Time a token without and with a context."""
    yield from compare_with_rwkv(config)
    yield from compare_contexts(config)


def compare_with_rwkv(config: BenchConfig) -> Iterator[Row]:
    """Time a token against the `rwkv` package, in fp32 and bf16."""
    shape, bandwidth = Shape.of(config), Peaks.measure(config).bandwidth
    for dtype in ("fp32", "bf16"):
        model, contenders = make_rwkv6(shape, dtype), {}
        config.try_add(
            contenders, RWKV, lambda model=model, dtype=dtype: package_token(make_rwkv_package(model, dtype))
        )
        contenders[MMRNN] = decode_token(model, state_after(model, 8))
        # A token reads one row of the embedding and all other weights.
        read = sum(parameter.nbytes for parameter in model.parameters()) - model.embedding.weight.nbytes
        for row in compare("decode", f"{shape} {dtype}, one token", contenders, config):
            yield replace(row, peak_fraction=read / row.seconds / bandwidth)


def package_token(model: Any) -> Workload:
    """Return a workload that decodes one token with the `rwkv` package."""
    state = [model.forward([5] * 8, None)[1]]

    def workload() -> None:
        _, state[0] = model.forward([5], state[0])

    return workload


def compare_contexts(config: BenchConfig) -> Iterator[Row]:
    """Time a token after contexts of several lengths against Llama, and compare the sizes of state and cache."""
    shape = Shape.of(config, vocab=32000)
    rwkv, llama = make_rwkv6(shape), config.try_make(LLAMA, lambda: make_llama(shape))
    for context in (16, 64) if config.quick else (1024, 4096, 8192, 16384, 24576):
        state = state_after(rwkv, context)
        contenders, megabytes = {}, {}
        for kind in (DEFAULT_CACHE, STATIC_CACHE) if llama is not None else ():
            contenders[kind], megabytes[kind] = llama_token(llama, kind, context)
        contenders[MMRNN], megabytes[MMRNN] = decode_token(rwkv, state), state.nbytes / 1e6
        case = f"{shape} fp32, one token after {context}"
        for row in compare("decode", case, contenders, config, megabytes=megabytes):
            yield replace(row, memory_kind="state or cache", context=context)


def llama_token(model: nn.Module, kind: str, context: int) -> tuple[Workload, float]:
    """Return a workload that decodes one token with Llama, and the megabytes of its cache."""
    cache, megabytes = filled_cache(model, kind, context, ROOM)
    position = [context]

    def workload() -> None:
        position_ids = torch.tensor([[position[0]]])
        model(input_ids=torch.tensor([[5]]), past_key_values=cache, use_cache=True, position_ids=position_ids)
        position[0] += 1

    return workload, megabytes
