"""Bytes of a state: fixed for a recurrent backbone, growing with every token for a transformer, both for a hybrid."""

import torch

from mmrnn.backbones import RWKV6, Transformer
from mmrnn.cli.show import state_size
from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.model.state_bytes import state_bytes
from mmrnn.types import Sequence


def test_a_recurrent_state_is_fixed():
    backbone = RWKV6(vocab=100, width=16, depth=2, head_size=8)
    assert state_bytes(backbone) == (backbone.state(1).nbytes, 0)


def test_a_cache_grows_by_keys_and_values():
    backbone = Transformer(vocab=100, width=16, depth=2, heads=2, ffn=24)
    with torch.no_grad():
        caches = [backbone(Sequence(torch.ones(1, length, dtype=torch.long)))[1].layers for length in (3, 4)]
    sizes = [sum(value.nbytes for layer in layers for value in layer.values()) for layers in caches]
    assert state_bytes(backbone) == (0, sizes[1] - sizes[0]) == (0, 2 * 2 * 16 * 4)


def test_a_hybrid_has_both():
    """As published for Qwen3.5 0.8B: 18.9 MB of matrices, and in bf16 0.66 MB of inputs and 12,288 bytes a token."""
    with torch.device("meta"):
        backbone = instantiate(plain(compose(config="backbone/qwen35_0b8"))["backbone"]).bfloat16()
    matrices, inputs = 18 * 16 * 128 * 128 * 4, 18 * 6144 * 3 * 2
    assert state_bytes(backbone) == (matrices + inputs, 12_288)
    assert state_size(backbone).startswith("state: 19.5 MB (19,537,920 bytes) a sample, and 12.3 kB")
