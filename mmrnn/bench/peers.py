"""Language models of one size: ours, that of the `rwkv` package with the same weights, and Llama of transformers."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from mmrnn.backbones import RWKV6
from mmrnn.bench.timing import BenchConfig, need
from mmrnn.types import Sequence, State
from mmrnn.weights.format import Format
from mmrnn.weights.formats.rwkv import RWKV6_NAMES

FLA, RWKV, OURS = "fla naive", "rwkv package", "mmrnn RWKV-6"
LLAMA, DEFAULT, STATIC = "transformers Llama", "Llama, default cache", "Llama, static cache"

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Shape:
    vocab: int = 65536
    width: int = 768
    depth: int = 12

    @classmethod
    def of(cls, effort: BenchConfig, vocab: int = 65536) -> "Shape":
        return cls(vocab=256, width=128, depth=2) if effort.quick else cls(vocab=vocab)

    def __str__(self) -> str:
        return f"{self.depth} x {self.width}"


def rwkv6(shape: Shape, dtype: str = "fp32") -> RWKV6:
    """Random weights, none of them zero: the published initialisation is slow to make and silences whole paths."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = RWKV6(vocab=shape.vocab, width=shape.width, depth=shape.depth)
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.5 / parameter.shape[-1] ** 0.5)
            elif "norm" in name:
                parameter.fill_(float(name.endswith("weight")))
            else:
                parameter.uniform_(*((-6, -1) if name.endswith("decay") else (0, 1)))
    return model.to(DTYPES[dtype]).eval()


def package(model: RWKV6, dtype: str) -> Any:
    """The model of the `rwkv` package with the weights of ours.

    Raises:
        Missing: it is not installed.
    """
    need("rwkv")
    os.environ.setdefault("RWKV_JIT_ON", "1")
    os.environ.setdefault("RWKV_CUDA_ON", "0")
    from rwkv.model import RWKV as Theirs

    names = Format("published", RWKV6, (), {ours: theirs for theirs, ours in RWKV6_NAMES.items()})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        tensors = model.state_dict().items()
        torch.save({names.rename(name): value.float().clone() for name, value in tensors}, f"{path}.pth")
        return Theirs(model=str(path), strategy=f"cpu {dtype}", verbose=False)


def llama(shape: Shape, dtype: str = "fp32", longest: int = 32768) -> nn.Module:
    """Llama of transformers with as many layers as wide.

    Raises:
        Missing: it is not installed.
    """
    need("transformers")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.width * 8 // 3 // 32 * 32,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.width // 64,
        num_key_value_heads=shape.width // 64,
        max_position_embeddings=longest,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).to(DTYPES[dtype]).eval()


def cache(model: nn.Module, kind: str, context: int, room: int) -> tuple[Any, float]:
    """A cache of transformers as it is after `context` tokens, and its megabytes."""
    from transformers import DynamicCache, StaticCache

    config = model.config
    empty = DynamicCache(config=config) if kind == DEFAULT else StaticCache(config=config, max_cache_len=context + room)
    heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        keys, values = torch.randn(2, 1, heads, context, size, dtype=model.dtype)
        empty.update(keys, values, layer, {"cache_position": torch.arange(context)})
    number = 2 * config.num_hidden_layers * heads * size * (context + (room if kind == STATIC else 0))
    return empty, number * model.dtype.itemsize / 1e6


def after(model: RWKV6, context: int) -> State:
    """The state after `context` tokens."""
    state, ids = None, torch.randint(0, model.vocab, (1, context))
    for piece in ids.split(1024, dim=1):
        _, state = model(Sequence(piece), state)
    return state


def one_token(model: RWKV6, state: State) -> Callable[[], Tensor]:
    """Reads a token and computes the logits of the next; goes on from where it was."""
    token, now = Sequence(torch.tensor([[5]])), [state]

    def work() -> Tensor:
        hidden, now[0] = model(token, now[0])
        return model.head(hidden[:, -1])

    return work
