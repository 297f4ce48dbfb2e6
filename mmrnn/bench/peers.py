"""Language models of one size: RWKV-6 of this library and of the `rwkv` package, and Llama of transformers."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from mmrnn.backbones import RWKV6
from mmrnn.bench.timing import CPU, BenchConfig, require
from mmrnn.types import Sequence, State

FLA, RWKV, MMRNN = "fla naive", "rwkv package", "mmrnn RWKV-6"
LLAMA, DEFAULT_CACHE, STATIC_CACHE = "transformers Llama", "Llama, default cache", "Llama, static cache"

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Shape:
    """Size of a language model.

    Attributes:
        vocab: rows of the embedding.
        width: model dimension.
        depth: number of blocks.
    """

    vocab: int = 65536
    width: int = 768
    depth: int = 12

    @classmethod
    def of(cls, config: BenchConfig, vocab: int = 65536) -> "Shape":
        """Return the size that a benchmark uses."""
        return cls(vocab=256, width=128, depth=2) if config.quick else cls(vocab=vocab)

    def __str__(self) -> str:
        return f"{self.depth} x {self.width}"


def empty_rwkv6(shape: Shape, *, grad_checkpointing: int = 0) -> RWKV6:
    """Create an RWKV-6 on the meta device."""
    with torch.device("meta"):
        sizes = {"vocab": shape.vocab, "width": shape.width, "depth": shape.depth}
        return RWKV6(**sizes, grad_checkpointing=grad_checkpointing)


def make_rwkv6(shape: Shape, dtype: str = "fp32", device: torch.device = CPU, *, grad_checkpointing: int = 0) -> RWKV6:
    """Create an RWKV-6 with random weights, none zero: the published initialisation is slow and zeroes outputs."""
    torch.manual_seed(0)
    model = empty_rwkv6(shape, grad_checkpointing=grad_checkpointing).to(DTYPES[dtype]).to_empty(device=device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.5 / parameter.shape[-1] ** 0.5)
            elif "norm" in name:
                parameter.fill_(float(name.endswith("weight")))
            else:
                parameter.uniform_(*((-6, -1) if name.endswith("decay") else (0, 1)))
    return model.eval()


def make_rwkv_package(model: RWKV6, dtype: str) -> Any:
    """Create a model of the `rwkv` package with the same weights.

    Raises:
        Unavailable: the package is not installed.
    """
    require("rwkv")
    os.environ.setdefault("RWKV_JIT_ON", "1")
    os.environ.setdefault("RWKV_CUDA_ON", "0")
    from rwkv.model import RWKV as PackageRWKV

    from mmrnn.weights.format import Format
    from mmrnn.weights.formats.rwkv import RWKV6_NAMES

    names = Format("published", RWKV6, (), {name: published for published, name in RWKV6_NAMES.items()})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        tensors = model.state_dict().items()
        torch.save({names.rename(name): value.float().clone() for name, value in tensors}, f"{path}.pth")
        return PackageRWKV(model=str(path), strategy=f"cpu {dtype}", verbose=False)


def make_llama(shape: Shape, dtype: str = "fp32", max_length: int = 32768) -> nn.Module:
    """Create a Llama of transformers of that size, with heads of 64.

    Raises:
        Unavailable: transformers is not installed.
    """
    require("transformers")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.width * 8 // 3 // 32 * 32,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.width // 64,
        num_key_value_heads=shape.width // 64,
        max_position_embeddings=max_length,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).to(DTYPES[dtype]).eval()


def filled_cache(model: nn.Module, kind: str, context: int, room: int) -> tuple[Any, float]:
    """Return a cache of transformers that holds `context` random tokens, and its size in megabytes.

    Args:
        kind: DEFAULT_CACHE or STATIC_CACHE.
        room: further tokens that a static cache has memory for.
    """
    from transformers import DynamicCache, StaticCache

    config = model.config
    if kind == DEFAULT_CACHE:
        cache, allocated = DynamicCache(config=config), context
    else:
        cache, allocated = StaticCache(config=config, max_cache_len=context + room), context + room
    heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        keys, values = torch.randn(2, 1, heads, context, size, dtype=model.dtype)
        cache.update(keys, values, layer, {"cache_position": torch.arange(context)})
    return cache, 2 * config.num_hidden_layers * heads * size * allocated * model.dtype.itemsize / 1e6


def state_after(model: RWKV6, context: int, rows: int = 1) -> State:
    """Return the state of some rows after `context` random tokens, read 1024 at a time."""
    state, ids = None, torch.randint(0, model.vocab, (rows, context), device=model.norm.weight.device)
    for chunk in ids.split(1024, dim=1):
        _, state = model(Sequence(chunk), state)
    return state


def decode_token(model: RWKV6, state: State) -> Callable[[], Tensor]:
    """Return a workload that decodes one token of every row and keeps the new state."""
    first = state.layers[0]["wkv"]
    token, current = Sequence(torch.full((len(first), 1), 5, device=first.device)), [state]

    def workload() -> Tensor:
        hidden, current[0] = model(token, current[0])
        return model.head(hidden[:, -1])

    return workload
