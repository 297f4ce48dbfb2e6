"""Every backbone of this library: logits and state in fp32, bf16 and fp16.

The truth is the same model in fp64 on the CPU (an RNN with `backend="reference"`), its weights rounded alike.
"""

from functools import partial

import torch
from torch import nn

import mmrnn.backbones
from gpu_checks.check import DTYPES, Check, Difference, difference
from mmrnn.backbones import GatedAttention, GatedDeltaNet
from mmrnn.types import Backbone, Sequence, State

VOCAB, WIDTH, DEPTH = 97, 128, 3

SIZES = {
    "RWKV5": {"head_size": 64},
    "RWKV6": {"head_size": 64},
    "RWKV7": {"head_size": 64},
    "Transformer": {"heads": 4, "kv_heads": 2, "ffn": 192},
    "GLM": {"heads": 4, "ffn": 256},
    "Mamba": {"state_size": 16},
    "Hybrid": {
        "pattern": ("delta", "attention"),
        "mixers": {
            "delta": partial(GatedDeltaNet, heads=2, key_size=32),
            "attention": partial(GatedAttention, heads=4, kv_heads=2, head_size=32, mrope_section=None),
        },
        "ffn": 192,
    },
}
"""Class -> knobs of a small model."""

ELSEWHERE = {
    "HFDecoder": "transformers computes it",
    "HFEncoderDecoder": "transformers computes it",
    "NoBackbone": "it computes nothing",
}
"""Classes that are not checked here -> reason."""

BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.15, torch.float16: 2e-2}


def checks() -> list[Check]:
    """Every backbone: whole rows, packed rows, and rows read in parts."""
    runs = {"rows": rows, "packed": packed, "parts": parts}
    return [
        Check(f"backbones/{name}/{case}/{word}", partial(run, name, DTYPES[word]))
        for name in SIZES
        for case, run in runs.items()
        for word in DTYPES
    ]


def make(name: str, dtype: torch.dtype, device: torch.device) -> tuple[Backbone, Backbone]:
    """A backbone of random weights on a device, and its truth: the published initialisations silence many paths."""
    cls = getattr(mmrnn.backbones, name)
    sizes = {"vocab": VOCAB, "width": WIDTH, "depth": DEPTH, **SIZES[name]}
    model = cls(**sizes)
    randomise(model)
    model.to(dtype)
    truth = cls(**sizes, **({"backend": "reference"} if cls.recurrent else {}))
    truth.load_state_dict(model.state_dict())
    return model.to(device).eval(), truth.double().eval()


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Add noise to every parameter, in the order of their names.

    Of eight seeds this one has the best-conditioned gradients: the norm of a head divides by a spread that is near
    zero at the first position of a segment where `r` and `k` are nearly orthogonal.
    """
    generator = torch.Generator().manual_seed(7)
    for _, parameter in sorted(model.named_parameters()):
        scale = 0.1 if parameter.dim() < 2 else 0.8 / parameter.shape[-1] ** 0.5
        parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def ids(length: int) -> torch.Tensor:
    """Two rows of random ids."""
    return torch.randint(0, VOCAB, (2, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def rows(name: str, dtype: torch.dtype, device: torch.device) -> list[Difference]:
    """Logits and state of rows of an odd length."""
    model, truth = make(name, dtype, device)
    return read(model, truth, Sequence(ids(67)), BOUNDS[dtype])


@torch.no_grad()
def packed(name: str, dtype: torch.dtype, device: torch.device) -> list[Difference]:
    """Logits and state of rows with several samples each."""
    model, truth = make(name, dtype, device)
    segments = torch.repeat_interleave(torch.arange(4), torch.tensor([5, 1, 33, 28])).expand(2, -1)
    return read(model, truth, Sequence(ids(67), segments=segments), BOUNDS[dtype])


@torch.no_grad()
def parts(name: str, dtype: torch.dtype, device: torch.device) -> list[Difference]:
    """Rows read in three parts, the last of one token, against the truth that read them at once."""
    model, truth = make(name, dtype, device)
    hidden, end = truth(Sequence(ids(67)))
    state, pieces = None, []
    for piece in ids(67).split([40, 26, 1], dim=1):
        part, state = model(Sequence(piece.to(device)), state)
        pieces.append(part)
    logits = model.head(torch.cat(pieces, dim=1))
    return compared(logits, state, truth.head(hidden), end, BOUNDS[dtype])


def read(model: Backbone, truth: Backbone, sequence: Sequence, bound: float) -> list[Difference]:
    """Differences of the logits and of the state after a sequence."""
    hidden, end = truth(sequence)
    found, state = model(sequence.to(next(model.parameters()).device))
    return compared(model.head(found), state, truth.head(hidden), end, bound)


def compared(logits: torch.Tensor, state: State, truth: torch.Tensor, end: State, bound: float) -> list[Difference]:
    """Differences of logits and of every tensor of a state."""
    found = [difference("logits", logits, truth, bound)]
    for layer, (own, true) in enumerate(zip(state.layers, end.layers, strict=True)):
        found += [difference(f"{layer}.{key}", own[key], true[key], bound) for key in true]
    found += [difference(key, state.shared[key], end.shared[key], 0.0) for key in end.shared]
    return found
