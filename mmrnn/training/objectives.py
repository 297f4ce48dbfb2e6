"""What a model is trained for."""

from collections.abc import Callable
from collections.abc import Sequence as Several
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.types import IGNORE, Batch, Sequence
from mmrnn.vlm import VLM, Output


def language_loss(
    logits: Float[Tensor, "n vocab"], targets: Int[Tensor, " n"], samples: Int[Tensor, " n"] | None, count: int
) -> Float[Tensor, ""]:
    """Cross-entropy of predictions with their targets.

    Args:
        samples: which of `count` samples each prediction belongs to: the mean is taken within every sample first and
            then over the samples, one without targets counting zero (VisualRWKV v6). None takes the mean over all.
    """
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    if samples is None:
        return losses.sum() / max(len(losses), 1)
    total = losses.new_zeros(count).index_add(0, samples, losses)
    number = losses.new_zeros(count).index_add(0, samples, torch.ones_like(losses))
    return (total / number.clamp(min=1)).mean()


def l2wrap(logits: Float[Tensor, "b t vocab"], factor: float) -> Float[Tensor, ""]:
    """Zero, with a gradient that pulls the largest logit of every position towards zero (RWKV).

    The gradient is factor / (b t) times that logit. It scales with the loss that it is added to.
    """
    term = 0.5 * factor * logits.float().amax(-1).square().mean()
    return term - term.detach()


class LanguageModel:
    """Next-token prediction of the supervised positions.

    Args:
        reduction: `sample` averages within a sample before it averages over samples (VisualRWKV v6), `token` averages
            over all targets of a batch (LLaVA).
        l2wrap: strength of the pull on the largest logits; 0 leaves it out, RWKV takes 1e-4.
    """

    def __init__(self, *, reduction: Literal["sample", "token"] = "sample", l2wrap: float = 0.0):
        self.reduction = reduction
        self.l2wrap = l2wrap

    def units(self, batch: Batch) -> int:
        """How many samples, or targets, the mean over a batch is taken of."""
        if self.reduction == "sample":
            return _samples(batch.sequence)[1]
        return int((batch.sequence.labels[:, 1:] != IGNORE).sum())

    def __call__(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """The loss of what `model` made of a batch with labels."""
        sequence = output.sequence
        rows, columns = (sequence.labels[:, 1:] != IGNORE).nonzero(as_tuple=True)
        targets = sequence.labels[rows, columns + 1]
        if self.l2wrap:
            every = model.head(output.hidden)
            logits, pull = every[rows, columns], l2wrap(every, self.l2wrap)
        else:
            logits, pull = model.head(output.hidden[rows, columns]), 0.0
        samples, count = _samples(sequence)
        chosen = samples[rows, columns + 1] if self.reduction == "sample" else None
        return language_loss(logits, targets, chosen, count) + pull


class Sum(nn.Module):
    """Several objectives at once, each with its weight.

    Args:
        parts: objectives, or functions that make one for the model.
    """

    def __init__(self, model: VLM, *, parts: Several[Any], weights: tuple[float, ...] | None = None):
        super().__init__()
        weights = weights or (1.0,) * len(parts)
        if len(weights) != len(parts):
            raise ValueError(f"there are {len(weights)} weights for {len(parts)} parts")
        made = [part(model) if isinstance(part, partial) else part for part in parts]
        self.parts, self.weights = made, tuple(weights)
        # Those that learn are modules of this one.
        self.learnt = nn.ModuleList(part for part in made if isinstance(part, nn.Module))
        self.levels = any(getattr(part, "levels", False) for part in made)
        self.reads = any(getattr(part, "reads", True) for part in made)

    def forward(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        return sum(weight * part(model, output) for weight, part in zip(self.weights, self.parts, strict=True))


def look(model: VLM, objective: Callable[[VLM, Output], Tensor], batch: Batch) -> Output:
    """What an objective wants to see of a batch: an objective may do without the backbone (`reads = False`), or ask
    for what every block is given (`levels = True`)."""
    if not getattr(objective, "reads", True):
        return Output(None, None, batch.sequence, batch)
    return model(batch, levels=getattr(objective, "levels", False))


def portion(
    objective: Callable[[VLM, Output], Tensor], model: VLM, output: Output, step: Several[Batch]
) -> Float[Tensor, ""]:
    """What a micro-batch gives to the loss of its step, so that all of them together have the loss of one batch.

    An objective takes its mean over units of its own, which `units(batch)` counts; where it does not say, over rows.
    L2Wrap looks at padding as well, and losses that compare the samples of a batch see those of a micro-batch alone:
    they do change with `accumulate`.

    Args:
        step: all micro-batches of the step, this one among them.
    """
    if isinstance(objective, Sum):
        parts = zip(objective.weights, objective.parts, strict=True)
        return sum(weight * portion(part, model, output, step) for weight, part in parts)
    units = getattr(objective, "units", _rows)
    return objective(model, output) * (units(output.batch) / max(sum(map(units, step)), 1))


def _rows(batch: Batch) -> int:
    return len(batch.sequence.ids)


def _samples(sequence: Sequence) -> tuple[Int[Tensor, "b t"], int]:
    """The number of the sample that each position belongs to, and how many samples there are."""
    b, t = sequence.ids.shape
    rows = torch.arange(b, device=sequence.ids.device)[:, None].expand(b, t)
    if sequence.segments is None:
        return rows, b
    key = rows * (sequence.segments.max() + 1) + sequence.segments
    known, numbers = key.unique(return_inverse=True)
    return numbers, len(known)
