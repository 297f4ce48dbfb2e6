"""Language-model objective: next-token prediction."""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from mmrnn.model.vlm import VLM
from mmrnn.training.objectives.chunks import CHUNK_SIZE, map_chunks
from mmrnn.types import IGNORE, Batch, NonNegativeFloat, Objective, Output, PositiveInt, Sequence


def token_losses(
    logits: Float[Tensor, "n vocab"], targets: Int[Tensor, " n"], z_loss: float = 0.0
) -> Float[Tensor, " n"]:
    """Cross-entropy of every prediction with its target; 0 for the target `IGNORE`.

    Args:
        z_loss: factor of the square of log Z, the logarithm of the denominator of the softmax (PaLM, arXiv 2204.02311,
            section 5): it keeps log Z near 0.
    """
    losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORE)
    if z_loss:
        losses = losses + z_loss * logits.logsumexp(-1).square().masked_fill(targets == IGNORE, 0)
    return losses


def l2wrap(logits: Float[Tensor, "*n vocab"], factor: float) -> Float[Tensor, " *n"]:
    """Zero for every position, with a gradient of `factor` times its largest logit at that logit (RWKV)."""
    term = 0.5 * factor * logits.amax(-1).square()
    return term - term.detach()


class L2Wrap(Objective):
    """Mean of `l2wrap` over all positions but padding, those of images and questions included.

    Args:
        factor: RWKV takes 1e-4.
        chunk_size: positions whose logits are computed at once.
    """

    def __init__(self, *, factor: NonNegativeFloat = 1e-4, chunk_size: PositiveInt = CHUNK_SIZE):
        self.factor, self.chunk_size = factor, chunk_size

    def num_units(self, batch: Batch) -> int:
        """Number of positions without padding."""
        return batch.sequence.size

    def __call__(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """Zero, with the gradient of L2Wrap."""

        def pull(hidden: Float[Tensor, "n d"]) -> Float[Tensor, "1 n"]:
            return l2wrap(model.head(hidden).float(), self.factor)[None]

        pulls = map_chunks(pull, self.chunk_size, output.hidden[_real(output.sequence)])
        return pulls.sum() / _full_size(output.sequence, pulls)


class LanguageModel(Objective):
    """Next-token prediction of the supervised positions.

    Args:
        reduction: `sample` averages within a sample before it averages over samples, one without targets counting
            zero (VisualRWKV v6); `token` averages over all targets of a step (LLaVA).
        l2wrap: strength of the pull on the largest logits; 0 leaves it out, RWKV takes 1e-4. It is a mean over the
            positions of a step, padding excluded; upstream's is one over those of a micro-batch, padding included.
        z_loss: weight of the square of log Z, averaged as the loss is; 0 leaves it out, PaLM takes 1e-4.
        chunk_size: positions whose logits are computed at once.
    """

    def __init__(
        self,
        *,
        reduction: Literal["sample", "token"] = "sample",
        l2wrap: NonNegativeFloat = 0.0,
        z_loss: NonNegativeFloat = 0.0,
        chunk_size: PositiveInt = CHUNK_SIZE,
    ):
        self.reduction, self.l2wrap, self.z_loss, self.chunk_size = reduction, l2wrap, z_loss, chunk_size

    def num_units(self, batch: Batch) -> int:
        """Number of samples, or of targets, as `reduction` says."""
        if self.reduction == "sample":
            return int(_samples(batch.sequence)[1].sum())
        return int((batch.sequence.targets != IGNORE).sum())

    def target_weights(self, sequence: Sequence) -> Float[Tensor, "b t"]:
        """The weights with which the losses of the targets add up to the loss."""
        known = (sequence.targets != IGNORE).float()
        if self.reduction == "token":
            return known / known.sum().clamp(min=1)
        samples, held = _samples(sequence)
        number = known.new_zeros(len(held)).index_add(0, samples.flatten(), known.flatten())
        return known / (number.clamp(min=1)[samples] * held.sum().clamp(min=1))

    def terms(self) -> list[tuple[float, Objective]]:
        """Return the prediction and, where it is used, L2Wrap, which counts positions."""
        if not self.l2wrap:
            return [(1.0, self)]
        predict = LanguageModel(reduction=self.reduction, z_loss=self.z_loss, chunk_size=self.chunk_size)
        return [(1.0, predict), (1.0, L2Wrap(factor=self.l2wrap, chunk_size=self.chunk_size))]

    def losses(self, model: VLM, output: Output) -> list[Float[Tensor, ""]]:
        """Compute the losses of all terms from one pass of the head over the positions that they need."""
        sequence, targets = output.sequence, output.sequence.targets
        # As indices: each use of a mask would wait for a GPU to count its positions.
        used = (_real(sequence) if self.l2wrap else targets != IGNORE).nonzero(as_tuple=True)
        found, *pulls = map_chunks(partial(self._measure, model), self.chunk_size, output.hidden[used], targets[used])
        weights = self.target_weights(sequence) if sequence.loss_weights is None else sequence.loss_weights
        # No sums by `index_add`, whose error grows with the number of targets.
        return [(found * weights[used]).sum(), *(pull.sum() / _full_size(sequence, pull) for pull in pulls)]

    def __call__(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """Compute the loss of the output of `model` for a batch with labels."""
        return sum(self.losses(model, output))

    def _measure(
        self, model: VLM, hidden: Float[Tensor, "n d"], targets: Int[Tensor, " n"]
    ) -> Float[Tensor, "terms n"]:
        """Losses of positions and, where it is used, their terms of L2Wrap."""
        logits = model.head(hidden).float()
        losses = token_losses(logits, targets, self.z_loss)
        return torch.stack([losses, l2wrap(logits, self.l2wrap)]) if self.l2wrap else losses[None]


def _real(sequence: Sequence) -> Bool[Tensor, "b t"]:
    """Positions that are no padding."""
    return torch.ones_like(sequence.ids, dtype=torch.bool) if sequence.padding is None else ~sequence.padding


def _full_size(sequence: Sequence, positions: Tensor) -> int:
    """Number of positions that a mean is taken over, given those of this sequence."""
    return max(sequence.full_size or positions.numel(), 1)


def _samples(sequence: Sequence) -> tuple[Int[Tensor, "b t"], Bool[Tensor, " samples"]]:
    """The number of the sample that the target of each position belongs to, and which samples are not padding alone."""
    b, t = sequence.ids.shape
    numbers, count = torch.arange(b, device=sequence.ids.device)[:, None].expand(b, t), b
    if sequence.segments is not None:
        known, numbers = (numbers * (sequence.segments.max() + 1) + sequence.segments).unique(return_inverse=True)
        count = len(known)
    size = torch.zeros(count, device=numbers.device).index_add(0, numbers.flatten(), _real(sequence).flatten().float())
    return torch.cat([numbers[:, 1:], numbers[:, -1:]], dim=1), size > 0
