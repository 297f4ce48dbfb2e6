"""Forward pass and loss of one micro-batch as one module, for data-parallel wrappers."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, Objective, Output, State

Share = tuple[float, ...]
"""For every term of the objective, the fraction of the step's units that lie in a micro-batch."""


class TrainStep(nn.Module):
    """Forward pass and loss of one micro-batch; model, head, objective and its parameters are inside.

    An objective that is a module belongs to the model as `model.objective`, so that stages can train it.

    Args:
        model: the model.
        objective: the loss.
        blank: one blank input of every modality, where several processes must use the same parameters: a micro-batch
            that lacks a modality runs it on the blank, with weight zero. None: one process.
    """

    def __init__(self, model: VLM, objective: Objective, blank: Batch | None = None):
        super().__init__()
        self.model = model
        self.objective = objective
        self.blank = blank

    def forward(self, batch: Batch, share: Share, state: State | None = None) -> tuple[Float[Tensor, ""], State | None]:
        """Loss of one micro-batch or piece of it, scaled so that the sum over a step equals the full-batch loss.

        Losses that compare the samples of a batch with each other (`BLIP2Pretraining`) are an exception: their value
        depends on the size of a micro-batch.

        Args:
            batch: the micro-batch, or a piece (`split`).
            share: of the micro-batch.
            state: after the piece before; None: the initial state.

        Returns:
            The loss, and the state after the last position; None for an objective that does without the backbone.
        """
        output = forward_for(self.model, self.objective, batch, self.blank, state)
        losses = zip(self.objective.terms(), share, self.objective.losses(self.model, output), strict=True)
        loss = sum(weight * part * value for (weight, _), part, value in losses)
        if self.blank is not None and not batch.sequence.image_spans:
            loss = loss + self._unused()
        return loss, output.state

    def _unused(self) -> Tensor | float:
        """Zero, with a graph to the parameters that a batch without images may leave out: of hook and objective."""
        parts = [part for part in (self.model.hook, self.objective) if isinstance(part, nn.Module)]
        trained = [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]
        return sum((0.0 * parameter.sum() for parameter in trained), 0.0)


def forward_for(
    model: VLM, objective: Objective, batch: Batch, blank: Batch | None = None, state: State | None = None
) -> Output:
    """Forward pass as far as an objective needs it: without the backbone, or with the inputs of all blocks."""
    if not objective.needs_backbone:
        return Output(None, None, batch.sequence, batch)
    return model(batch, state, output_hidden_states=objective.needs_hidden_states, blank=blank)


def unit_counts(objective: Objective, batch: Batch | None) -> list[int]:
    """Units of each term of an objective in a micro-batch; None: a micro-batch without samples, which has none."""
    return [0 if batch is None else term.num_units(batch) for _, term in objective.terms()]


def shares(counts: Sequence[Sequence[int]], totals: Sequence[float | int], ranks: int = 1) -> list[Share]:
    """For every micro-batch of a process, its fraction of the units of each term; 0 where a term has no units.

    Gradients are averaged over processes, so that fractions are multiplied by their number.

    Args:
        counts: units of each term in every micro-batch.
        totals: units of each term in the whole step, over all micro-batches and processes.
        ranks: number of processes.
    """
    return [tuple(ranks * count / max(total, 1) for count, total in zip(row, totals, strict=True)) for row in counts]
