"""Towers whose blocks are recomputed have the values and gradients of others."""

import pytest
import torch
from torch.utils import checkpoint as module

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain


@pytest.mark.parametrize("name", ["clip_tiny", "clip_tiny_openclip", "eva_tiny", "sam_tiny", "intern_tiny"])
def test_values_and_gradients(name, monkeypatch):
    calls, run = [], module.checkpoint
    for path in ("torch.utils.checkpoint.checkpoint", "open_clip.transformer.checkpoint"):
        monkeypatch.setattr(path, lambda *args, **more: calls.append(1) or run(*args, **more))
    card = plain(compose(config=f"encoder/{name}"))["encoder"]
    kept, recomputed = instantiate(card), instantiate({**card, "grad_checkpointing": 1})
    recomputed.load_state_dict(kept.state_dict())
    images, results = torch.randn(2, 3, *kept.image.size), []
    for tower in (kept, recomputed):
        tokens = tower.train()(images)
        tokens.square().sum().backward()
        results.append([tokens, *(p.grad for p in tower.parameters() if p.grad is not None)])
    assert len(calls) == len(getattr(kept.trunk, "blocks", None) or kept.trunk.transformer.resblocks)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-5)
