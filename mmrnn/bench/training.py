"""A training step of language models of one size: forward, loss, backward, optimizer."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones import Transformer
from mmrnn.bench.peers import LLAMA, OURS, Shape, llama, rwkv6
from mmrnn.bench.timing import BenchConfig, Row, Work, compare
from mmrnn.types import Sequence

TRANSFORMER = "mmrnn transformer"


def measure(effort: BenchConfig) -> Iterator[Row]:
    shape = Shape(vocab=256, width=128, depth=2) if effort.quick else Shape(vocab=4096, width=256, depth=6)
    ids = torch.randint(0, shape.vocab, (2, 16) if effort.quick else (4, 512))
    sides: dict[str, Work] = {}
    effort.offer(sides, LLAMA, lambda: theirs(llama(shape), ids))
    sides[TRANSFORMER] = ours(transformer(shape), ids)
    sides[OURS] = ours(rwkv6(shape), ids)
    yield from compare("training", f"{shape} fp32, {' x '.join(map(str, ids.shape))} tokens", sides, effort)


def transformer(shape: Shape) -> Transformer:
    heads, ffn = shape.width // 64, shape.width * 8 // 3 // 32 * 32
    return Transformer(vocab=shape.vocab, width=shape.width, depth=shape.depth, heads=heads, ffn=ffn)


def ours(model: nn.Module, ids: Tensor) -> Work:
    return step(model, lambda: model.head(model(Sequence(ids))[0]), ids)


def theirs(model: nn.Module, ids: Tensor) -> Work:
    return step(model, lambda: model(input_ids=ids, use_cache=False).logits, ids)


def step(model: nn.Module, read: Callable[[], Tensor], ids: Tensor) -> Work:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4)

    def work() -> None:
        optimizer.zero_grad()
        F.cross_entropy(read()[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()

    return work
