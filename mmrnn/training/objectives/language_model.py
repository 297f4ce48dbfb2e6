"""Language-model objective: next-token prediction."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mmrnn.model.vlm import VLM
from mmrnn.types import IGNORE, Batch, NonNegativeFloat, Objective, Output, Sequence


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


def l2wrap(logits: Float[Tensor, "b t vocab"], factor: float, share: float = 1.0) -> Float[Tensor, ""]:
    """Zero, with a gradient that pulls the largest logit of every position towards zero (RWKV).

    The gradient is factor / (b t) times that logit. It scales with the loss that it is added to.

    Args:
        share: fraction of the positions of a micro-batch that these are.
    """
    term = 0.5 * factor * share * logits.float().amax(-1).square().mean()
    return term - term.detach()


class LanguageModel(Objective):
    """Next-token prediction of the supervised positions.

    Args:
        reduction: `sample` averages within a sample before it averages over samples (VisualRWKV v6), `token` averages
            over all targets of a batch (LLaVA).
        l2wrap: strength of the pull on the largest logits; 0 leaves it out, RWKV takes 1e-4.
    """

    def __init__(self, *, reduction: Literal["sample", "token"] = "sample", l2wrap: NonNegativeFloat = 0.0):
        self.reduction = reduction
        self.l2wrap = l2wrap

    def num_units(self, batch: Batch) -> int:
        """Number of samples, or of targets, as `reduction` says."""
        if self.reduction == "sample":
            return _samples(batch.sequence)[1]
        return int((batch.sequence.targets != IGNORE).sum())

    def target_weights(self, sequence: Sequence) -> Float[Tensor, "b t"]:
        """The weights with which the cross-entropies of the targets add up to the loss."""
        known = (sequence.targets != IGNORE).float()
        if self.reduction == "token":
            return known / known.sum().clamp(min=1)
        samples, count = _samples(sequence)
        number = known.new_zeros(count).index_add(0, samples.flatten(), known.flatten())
        return known / (number.clamp(min=1)[samples] * count)

    def __call__(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """The loss of what `model` made of a batch with labels."""
        sequence = output.sequence
        rows, columns = (sequence.targets != IGNORE).nonzero(as_tuple=True)
        targets = sequence.targets[rows, columns]
        if self.l2wrap:
            every = model.head(output.hidden)
            share = sequence.ids.shape[1] / (sequence.full_length or sequence.ids.shape[1])
            logits, pull = every[rows, columns], l2wrap(every, self.l2wrap, share)
        else:
            logits, pull = model.head(output.hidden[rows, columns]), 0.0
        if sequence.loss_weights is not None:
            losses = F.cross_entropy(logits.float(), targets, reduction="none")
            return (losses * sequence.loss_weights[rows, columns]).sum() + pull
        samples, count = _samples(sequence)
        chosen = samples[rows, columns] if self.reduction == "sample" else None
        return language_loss(logits, targets, chosen, count) + pull


def _samples(sequence: Sequence) -> tuple[Int[Tensor, "b t"], int]:
    """The number of the sample that the target of each position belongs to, and how many samples there are."""
    b, t = sequence.ids.shape
    rows = torch.arange(b, device=sequence.ids.device)[:, None].expand(b, t)
    if sequence.segments is None:
        return rows, b
    key = rows * (sequence.segments.max() + 1) + sequence.segments
    known, numbers = key.unique(return_inverse=True)
    return torch.cat([numbers[:, 1:], numbers[:, -1:]], dim=1), len(known)
