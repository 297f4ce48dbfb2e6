"""Observations that are no images: the state of objects as vectors (PaLM-E, arXiv 2303.03378)."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import Encoder, ImageSpec, Layout


class StateEncoder(nn.Module, Encoder):
    """An MLP over the vector of every object (pose, size, colour), or over every slot of a scene representation.

    What is read is `m objects features`, where an image encoder reads `m c H W`.

    Args:
        objects: in one observation.
        features: numbers that describe an object.
        tokens: that an object becomes: 1 for states, some for slots.
        depth: projections of the MLP, with ReLU between them.
    """

    def __init__(self, *, objects: int = 4, features: int = 16, width: int = 512, tokens: int = 1, depth: int = 2):
        super().__init__()
        for name, value in (("objects", objects), ("features", features), ("tokens", tokens), ("depth", depth)):
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        self.width, self.tokens = width, tokens
        self.image = ImageSpec((objects, features), resize="none")
        sizes = [features, *[width] * (depth - 1), width * tokens]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def layout(self, height: int, width: int) -> Layout:
        """The tokens of `height` objects with `width` features each.

        Raises:
            ValueError: another number of features than this encoder was built for.
        """
        if width != self.image.size[1]:
            raise ValueError(f"an object has {width} features, but features={self.image.size[1]}")
        return Layout(prefix=height * self.tokens)

    def forward(self, states: Float[Tensor, "m objects features"]) -> Float[Tensor, "m n e"]:
        self.layout(*states.shape[-2:])
        return self.layers(states).unflatten(-1, (self.tokens, self.width)).flatten(1, 2)
