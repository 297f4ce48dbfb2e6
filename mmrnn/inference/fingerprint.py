"""Fingerprints of what a state depends on: weights, tokenizer and scan."""

import json
from collections.abc import Mapping
from hashlib import sha256

import torch
from torch import Tensor

from mmrnn.model.objective import saved_tensors
from mmrnn.model.state_origin import scan_fingerprint
from mmrnn.model.vlm import VLM
from mmrnn.types import Tokenizer

PROBE = "User: how many\tthings? 3.14\n\nAssistant: 你好 été 🙂 <image>"
"""Text whose ids are part of the fingerprint of a tokenizer."""

SAMPLES = 512
"""Values that are read of a tensor, and ids that are decoded of a tokenizer, evenly spaced."""


def state_facts(model: VLM, tokenizer: Tokenizer) -> dict[str, str]:
    """Return the fingerprints by name: `weights`, `tokenizer`, `scan`."""
    return {
        "weights": weights_fingerprint(model),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "scan": scan_fingerprint(model.scan, model.backbone.depth),
    }


def weights_fingerprint(model: VLM) -> str:
    """Return a fingerprint of names, shapes and some values of all weights, rounded to bf16.

    It is the same on every device and in fp32 and bf16, and before and after the model is saved; it differs after a
    training step.
    """
    return tensors_fingerprint(saved_tensors(model))


@torch.no_grad()
def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return a fingerprint of tensors by name, as `weights_fingerprint` does of those of a model."""
    digest = sha256()
    for name, value in sorted(tensors.items()):
        flat = value.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // SAMPLES)].to(torch.bfloat16)
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(some.view(torch.int16).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Return a fingerprint of special ids, of the ids of a text in several scripts, and of the texts of some ids."""
    vocab = tokenizer.vocab or 0
    texts = [tokenizer.decode([id]) for id in range(0, vocab, max(1, vocab // SAMPLES))]
    facts = [vocab, tokenizer.pad, tokenizer.starts, tokenizer.ends, tokenizer.encode(PROBE), texts]
    return sha256(json.dumps(facts).encode()).hexdigest()[:16]
