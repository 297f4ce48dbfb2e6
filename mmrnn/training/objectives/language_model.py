"""Language-model objective: next-token prediction."""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from mmrnn.model.vlm import VLM
from mmrnn.training.objectives.chunks import map_chunks
from mmrnn.types import IGNORE, Batch, NonNegativeFloat, Objective, Output, PositiveInt, Sequence


def token_losses(
    logits: Float[Tensor, "n vocab"], targets: Int[Tensor, " n"], z_loss: float = 0.0
) -> Float[Tensor, " n"]:
    """Cross-entropy of every prediction with its target; 0 for the target `IGNORE`.

    Args:
        z_loss: factor of the square of log Z, the logarithm of the softmax's denominator, which keeps it near 0
            (PaLM, arXiv 2204.02311, 5).
    """
    losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORE)
    if z_loss:
        losses = losses + z_loss * logits.logsumexp(-1).square().masked_fill(targets == IGNORE, 0)
    return losses


def l2wrap(logits: Float[Tensor, "*n vocab"], factor: float) -> Float[Tensor, " *n"]:
    """Zero for every position, with a gradient of `factor` times its largest logit, at that logit (RWKV)."""
    term = 0.5 * factor * logits.amax(-1).square()
    return term - term.detach()


class L2Wrap(Objective):
    """Mean of `l2wrap` over all positions but padding, those of images and questions included.

    Args:
        factor: RWKV takes 1e-4.
        chunk_size: positions whose logits are computed at once.
    """

    def __init__(self, *, factor: NonNegativeFloat = 1e-4, chunk_size: PositiveInt = 1024):
        self.factor, self.chunk_size = factor, chunk_size

    def num_units(self, batch: Batch) -> int:
        """Number of positions without padding."""
        return int(_real(batch.sequence).sum())

    def __call__(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """Zero, with the gradient of L2Wrap."""

        def pull(hidden: Float[Tensor, "n d"]) -> Float[Tensor, "1 n"]:
            return l2wrap(model.head(hidden).float(), self.factor)[None]

        return _mean(map_chunks(pull, self.chunk_size, output.hidden[_real(output.sequence)])[0])


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
        chunk_size: PositiveInt = 1024,
    ):
        self.reduction, self.l2wrap, self.z_loss, self.chunk_size = reduction, l2wrap, z_loss, chunk_size

    def num_units(self, batch: Batch) -> int:
        """Number of samples, or of targets, as `reduction` says."""
        if self.reduction == "sample":
            return len(_samples(batch.sequence)[1])
        return int((batch.sequence.labels[:, 1:] != IGNORE).sum())

    def terms(self) -> list[tuple[float, Objective]]:
        """Return the prediction and, where it is used, L2Wrap, which counts positions."""
        predict = LanguageModel(reduction=self.reduction, z_loss=self.z_loss, chunk_size=self.chunk_size)
        pull = L2Wrap(factor=self.l2wrap, chunk_size=self.chunk_size)
        return [(1.0, predict), (1.0, pull)] if self.l2wrap else [(1.0, self)]

    def losses(self, model: VLM, output: Output) -> list[Float[Tensor, ""]]:
        """Compute the losses of all terms from one pass of the head over the positions that they need."""
        sequence = output.sequence
        targets = F.pad(sequence.labels[:, 1:], (0, 1), value=IGNORE)
        used = _real(sequence) if self.l2wrap else targets != IGNORE
        measure = partial(self._measure, model)
        losses, *pulls = map_chunks(measure, self.chunk_size, output.hidden[used], targets[used])
        found = _mean(losses, targets[used] != IGNORE)
        if self.reduction == "sample":
            sample, known = _samples(sequence)
            index = torch.searchsorted(known, F.pad(sample[:, 1:], (0, 1))[used])
            found = _mean_of_samples(losses, targets[used] != IGNORE, index, len(known))
        return [found, *map(_mean, pulls)]

    def __call__(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """The loss of what `model` made of a batch with labels."""
        return sum(self.losses(model, output))

    def _measure(
        self, model: VLM, hidden: Float[Tensor, "n d"], targets: Int[Tensor, " n"]
    ) -> Float[Tensor, "terms n"]:
        logits = model.head(hidden).float()
        losses = [token_losses(logits, targets, self.z_loss)]
        return torch.stack([*losses, l2wrap(logits, self.l2wrap)] if self.l2wrap else losses)


def _real(sequence: Sequence) -> Bool[Tensor, "b t"]:
    """Positions that are no padding."""
    return torch.ones_like(sequence.ids, dtype=torch.bool) if sequence.padding is None else ~sequence.padding


def _samples(sequence: Sequence) -> tuple[Int[Tensor, "b t"], Int[Tensor, " samples"]]:
    """A number for every position, equal within a sample, and the numbers of all samples in rising order."""
    b, t = sequence.ids.shape
    number = torch.arange(b, device=sequence.ids.device)[:, None].expand(b, t)
    if sequence.segments is not None:
        number = number * (sequence.segments.max() + 1) + sequence.segments
    return number, number[_real(sequence)].unique()


def _mean(values: Float[Tensor, " n"], counted: Bool[Tensor, " n"] | None = None) -> Float[Tensor, ""]:
    """Mean over the counted entries, the others being 0; 0 of none."""
    return values.sum() / (max(len(values), 1) if counted is None else counted.sum().clamp(min=1))


def _mean_of_samples(
    losses: Float[Tensor, " n"], counted: Bool[Tensor, " n"], sample: Int[Tensor, " n"], count: int
) -> Float[Tensor, ""]:
    """Mean over `count` samples of the means within them."""
    total = losses.new_zeros(count).index_add(0, sample, losses)
    number = losses.new_zeros(count).index_add(0, sample, counted.to(losses.dtype))
    return _mean(total / number.clamp(min=1))
