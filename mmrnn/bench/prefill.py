"""Reading a prompt: beside the `rwkv` package, and at growing length beside Llama."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from mmrnn.bench.peers import LLAMA, OURS, RWKV, Shape, after, llama, package, rwkv6
from mmrnn.bench.timing import BenchConfig, Row, Work, compare


@torch.no_grad()
def measure(effort: BenchConfig) -> Iterator[Row]:
    shape, length = Shape.of(effort), 32 if effort.quick else 2048
    for dtype in ("fp32", "bf16"):
        model, sides = rwkv6(shape, dtype), {}
        effort.offer(sides, RWKV, lambda model=model, dtype=dtype: their_prompt(package(model, dtype), length))
        sides[OURS] = lambda model=model: after(model, length)
        yield from compare("prefill", f"{shape} {dtype}, {length} tokens", sides, effort)
    shape = Shape.of(effort, vocab=32000)
    for length in (32, 64) if effort.quick else (2048, 8192, 24576):
        model, sides = rwkv6(shape), {}
        effort.offer(sides, LLAMA, lambda length=length: llama_prompt(llama(shape), length))
        sides[OURS] = lambda model=model, length=length: after(model, length)
        once = replace(effort, rounds=1, most=5)
        yield from compare("prefill", f"{shape} fp32, {length} tokens beside Llama", sides, once)


def their_prompt(model: Any, length: int) -> Work:
    ids = torch.randint(0, 256, (length,)).tolist()
    return lambda: model.forward(ids, None)


def llama_prompt(model: Any, length: int) -> Work:
    ids = torch.randint(0, 256, (1, length))
    return lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1)
