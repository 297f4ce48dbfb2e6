"""Classification of images by their visual tokens (ImageNet, VisualRWKV v7.10)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, ImageSpan, Objective, Output, PositiveInt, reset_layers


class Classification(nn.Module, Objective):
    """Cross-entropy of a linear head on the mean of the visual tokens of every image whose class is known.

    The visual tokens are those that the language model reads. The head exists while training only.

    Args:
        classes: number of classes.
    """

    def __init__(self, model: VLM, *, classes: PositiveInt = 1000):
        super().__init__()
        self.head = nn.Linear(model.backbone.width, classes)

    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)

    def num_units(self, batch: Batch) -> int:
        """Number of images with a class."""
        return len(classified(batch.sequence.image_spans))

    def forward(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """The mean over the images with a class; 0 without one.

        Raises:
            ValueError: a class is not below `classes`.
        """
        spans = classified(output.sequence.image_spans)
        logits = self.logits(output, spans)
        if not spans:
            return logits.sum() + 0.0 * sum(parameter.sum() for parameter in self.parameters())
        classes = torch.tensor([span.class_id for span in spans], device=logits.device)
        if (most := int(classes.max())) >= logits.shape[1]:
            raise ValueError(f"class_id {most} of a sample must be below classes ({logits.shape[1]}) of the objective")
        return F.cross_entropy(logits.float(), classes)

    def logits(self, output: Output, spans: list[ImageSpan]) -> Float[Tensor, "m classes"]:
        """Logits of the classes of some images."""
        embeds = output.sequence.embeds
        means = [embeds[span.sample, span.start : span.stop].mean(0) for span in spans]
        return self.head(torch.stack(means) if means else embeds.new_zeros(0, embeds.shape[-1]))


def classified(spans: tuple[ImageSpan, ...]) -> list[ImageSpan]:
    """Return the images that fill slots and whose class is known."""
    return [span for span in spans if span.class_id is not None and span.layout.tokens]
