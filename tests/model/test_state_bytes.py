"""Bytes of a state: fixed for a recurrent backbone, growing with every token for a transformer."""

import torch

from mmrnn.backbones import RWKV6, Transformer
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
