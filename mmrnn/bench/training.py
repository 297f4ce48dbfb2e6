"""Training step of language models of one size: forward pass, loss, backward pass, optimizer."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones import Transformer
from mmrnn.bench.peers import LLAMA, MMRNN, Shape, make_llama, make_rwkv6
from mmrnn.bench.timing import BenchConfig, Row, Workload, compare
from mmrnn.types import Backbone, Sequence

TRANSFORMER = "mmrnn transformer"


def measure(config: BenchConfig) -> Iterator[Row]:
    """Time a training step of RWKV-6, of the transformer and of Llama of transformers."""
    shape = Shape(vocab=256, width=128, depth=2) if config.quick else Shape(vocab=4096, width=256, depth=6)
    ids = torch.randint(0, shape.vocab, (2, 16) if config.quick else (4, 512))
    contenders: dict[str, Workload] = {}
    config.try_add(contenders, LLAMA, lambda: llama_step(make_llama(shape), ids))
    contenders[TRANSFORMER] = backbone_step(make_transformer(shape), ids)
    contenders[MMRNN] = backbone_step(make_rwkv6(shape), ids)
    yield from compare("training", f"{shape} fp32, {' x '.join(map(str, ids.shape))} tokens", contenders, config)


def make_transformer(shape: Shape) -> Transformer:
    """Create a transformer of this library of that size, with heads of 64."""
    heads, ffn = shape.width // 64, shape.width * 8 // 3 // 32 * 32
    return Transformer(vocab=shape.vocab, width=shape.width, depth=shape.depth, heads=heads, ffn=ffn)


def backbone_step(model: Backbone, ids: Tensor) -> Workload:
    """Return a workload that trains a backbone of this library for one step."""
    return training_step(model, lambda: model.head(model(Sequence(ids))[0]), ids)


def llama_step(model: nn.Module, ids: Tensor) -> Workload:
    """Return a workload that trains Llama of transformers for one step."""
    return training_step(model, lambda: model(input_ids=ids, use_cache=False).logits, ids)


def training_step(model: nn.Module, logits: Callable[[], Tensor], ids: Tensor) -> Workload:
    """Return a workload that runs one step of AdamW on the cross-entropy of `logits()`."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4)

    def workload() -> None:
        optimizer.zero_grad()
        F.cross_entropy(logits()[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()

    return workload
