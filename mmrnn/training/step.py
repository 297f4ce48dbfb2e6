"""Forward pass and loss of one micro-batch as one module, for data-parallel wrappers."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, Objective, Output

Share = tuple[float, ...]
"""For every term of the objective, the fraction of the step's units that lie in a micro-batch."""


class TrainStep(nn.Module):
    """Forward pass and loss of one micro-batch; model, head, objective and its parameters are inside.

    An objective that is a module belongs to the model as `model.objective`, so that stages can train it.
    """

    def __init__(self, model: VLM, objective: Objective):
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch, share: Share) -> Float[Tensor, ""]:
        """Loss of one micro-batch, scaled so that the sum over a step equals the full-batch loss.

        The exception are losses that compare the samples of a batch with each other (`BLIP2Pretraining`): their value
        depends on the size of a micro-batch.
        """
        output = forward_for(self.model, self.objective, batch)
        losses = zip(self.objective.terms(), share, self.objective.losses(self.model, output), strict=True)
        return sum(weight * part * loss for (weight, _), part, loss in losses)


def forward_for(model: VLM, objective: Objective, batch: Batch) -> Output:
    """Forward pass as far as an objective needs it: without the backbone, or with the inputs of all blocks."""
    if not objective.needs_backbone:
        return Output(None, None, batch.sequence, batch)
    return model(batch, output_hidden_states=objective.needs_hidden_states)


def shares(objective: Objective, step: Sequence[Batch]) -> list[Share]:
    """For every micro-batch of a step, its fraction of the units of each term; 0 where a term has no units."""
    counts = [[term.num_units(batch) for _, term in objective.terms()] for batch in step]
    totals = [max(sum(column), 1) for column in zip(*counts, strict=True)]
    return [tuple(count / total for count, total in zip(row, totals, strict=True)) for row in counts]
