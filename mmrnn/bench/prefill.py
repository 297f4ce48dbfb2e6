"""Prefill of a prompt: against the `rwkv` package, and over the prompt length against Llama."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mmrnn.bench.peers import LLAMA, MMRNN, RWKV, Shape, make_llama, make_rwkv6, make_rwkv_package, state_after
from mmrnn.bench.timing import BenchConfig, Row, Workload, compare


@torch.no_grad()
def measure(config: BenchConfig) -> Iterator[Row]:
    """Time the prefill of prompts of several lengths."""
    shape, length = Shape.of(config), 32 if config.quick else 2048
    for dtype in ("fp32", "bf16"):
        model, contenders = make_rwkv6(shape, dtype), {}
        config.try_add(
            contenders, RWKV, lambda model=model, dtype=dtype: package_prompt(make_rwkv_package(model, dtype), length)
        )
        contenders[MMRNN] = lambda model=model: state_after(model, length)
        yield from compare("prefill", f"{shape} {dtype}, {length} tokens", contenders, config)
    shape = Shape.of(config, vocab=32000)
    for length in (32, 64) if config.quick else (2048, 8192, 24576):
        model, contenders = make_rwkv6(shape), {}
        config.try_add(contenders, LLAMA, lambda length=length: llama_prompt(make_llama(shape), length))
        contenders[MMRNN] = lambda model=model, length=length: state_after(model, length)
        few_rounds = replace(config, min_rounds=1, max_rounds=5)
        yield from compare("prefill", f"{shape} fp32, {length} tokens, Llama", contenders, few_rounds)


def package_prompt(model: Any, length: int) -> Workload:
    """Return a workload that reads a prompt with the `rwkv` package."""
    ids = torch.randint(0, 256, (length,)).tolist()
    return lambda: model.forward(ids, None)


def llama_prompt(model: nn.Module, length: int) -> Workload:
    """Return a workload that reads a prompt with Llama."""
    ids = torch.randint(0, 256, (1, length))
    return lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1)
