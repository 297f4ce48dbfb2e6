"""One training step of a small vision-language model with every backbone: loss, gradients and updated weights.

The truth is the same step in fp64 on the CPU. Rows are packed, and one of their samples has an image.
"""

from copy import deepcopy
from functools import partial

import torch

from gpu_checks.backbones import SIZES, VOCAB, WIDTH, ids, make, randomise
from gpu_checks.check import DTYPES, Check, Difference, difference
from mmrnn.connectors import MLP
from mmrnn.encoders import PatchEmbed
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training.compiled import compile_blocks
from mmrnn.training.loop.chunked import split
from mmrnn.training.objectives.language_model import LanguageModel
from mmrnn.training.optim.adamw import AdamW
from mmrnn.training.step import TrainStep, shares, unit_counts
from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Sequence

BOUNDS = {
    torch.float32: {"loss": 1e-5, "grad": 1e-4, "step": 1e-3},
    torch.bfloat16: {"loss": 1e-2, "grad": 0.5, "step": 0.5},
    torch.float16: {"loss": 2e-3, "grad": 0.1, "step": 0.1},
}
"""Type of autocast (fp32: none) -> bound of each kind of difference. Single gradients of bf16 are off by a tenth on a
CPU, too; a gradient that is missing or has the wrong sign is off by 1 or 2.
"""

NOT_COMPARED = {("Hybrid", "bf16")}
"""Backbone and type of autocast whose gradients say nothing: the norm of each head amplifies the rounding, on a
CPU, too. Those of fp16, which rounds eight times finer, keep the bound.
"""

Found = dict[str, dict[str, torch.Tensor]]


def checks() -> list[Check]:
    """Every backbone in fp32, and under autocast to 16 bits; with compiled blocks; in pieces; with chunks of logits."""
    found = [
        Check(f"training/{name}/{word}", partial(compare, name, dtype))
        for name in SIZES
        for word, dtype in DTYPES.items()
        if (name, word) not in NOT_COMPARED
    ]
    found += [
        Check(f"training/{name}/compiled", partial(compare, name, torch.float32, compiled=True)) for name in SIZES
    ]
    found += [
        Check(f"training/RWKV6/logits/{word}", partial(compare, "RWKV6", dtype, chunk_size=7))
        for word, dtype in DTYPES.items()
    ]
    recurrent = [name for name in SIZES if name.startswith("RWKV")]
    return found + [
        Check(f"training/{name}/pieces", partial(compare, name, torch.float32, train_chunk=11)) for name in recurrent
    ]


def compare(
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    compiled: bool = False,
    train_chunk: int = 0,
    chunk_size: int = 1024,
) -> list[Difference]:
    """Differences of the loss, of each gradient and of the change of each weight.

    Args:
        compiled: compile the blocks; for a CPU they are traced only.
        train_chunk: positions of a piece that passes on its state; 0: rows are read at once.
        chunk_size: positions whose logits are computed at once; the truth computes all.
    """
    backbone, reference = make(name, torch.float32, device)
    if compiled:
        torch._dynamo.reset()
        compile_blocks(backbone, backend="inductor" if device.type == "cuda" else "eager")
    modality = Modality(encoder := PatchEmbed(patch=8, width=32, size=16), MLP(encoder.width, WIDTH))
    randomise(modality)
    truth = trained(VLM(reference, {"image": deepcopy(modality).double()}), torch.device("cpu"), torch.float64)
    found = trained(VLM(backbone, {"image": modality.to(device)}), device, dtype, train_chunk, chunk_size)
    return [
        difference(f"{kind} {key}".strip(), found[kind][key], value, BOUNDS[dtype][kind])
        for kind, values in truth.items()
        for key, value in values.items()
    ]


def trained(
    model: VLM, device: torch.device, dtype: torch.dtype, train_chunk: int = 0, chunk_size: int = 1024
) -> Found:
    """Loss, gradients and changes of the weights by name.

    With eps = 1 a step of AdamW is nearly proportional to the gradient: a weight whose gradient is all rounding does
    not jump.
    """
    step = TrainStep(model.train(), objective := LanguageModel(l2wrap=1e-2, z_loss=1e-3, chunk_size=chunk_size))
    batch = make_batch(model, next(model.parameters()).dtype)
    counts = unit_counts(objective, batch)
    share = shares([counts], counts)[0]
    named = dict(model.named_parameters())
    before = {key: value.detach().clone() for key, value in named.items()}
    optim = AdamW([{"params": [*named.values()]}], 1.0, betas=(0.9, 0.99), eps=1.0)
    loss, state = 0.0, None
    with torch.autocast(device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16)):
        for piece in split(batch, objective, train_chunk):
            part, state = step(piece.to(device), share, state)
            loss = loss + part
    loss.backward()
    grads = {key: value.grad for key, value in named.items() if value.grad is not None}
    optim.step()
    return {
        "loss": {"": loss.detach()},
        "grad": grads,
        "step": {key: named[key].detach() - before[key] for key in grads},
    }


def make_batch(model: VLM, dtype: torch.dtype) -> Batch:
    """Two rows of two samples; the first sample of each has an image, half of the positions have targets."""
    layout, known = model.modalities["image"].layout(16, 16), ids(41)
    spans = tuple(ImageSpan(row, 3, layout) for row in range(2))
    labels = known.clone()
    labels[:, :12] = IGNORE
    known[:, 3 : 3 + layout.tokens] = SLOT
    segments = (torch.arange(41) >= 22).long().expand(2, -1)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert labels.max() < VOCAB
    return Batch(Sequence(known, spans, labels=labels, segments=segments), {"image": images.to(dtype)})
