"""State vectors of objects (PaLM-E, arXiv 2303.03378)."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import Encoder, ImageSpec, Layout, PositiveInt


class StateEncoder(nn.Module, Encoder):
    """MLP over the state vector of each object (pose, size, colour), or over each slot of a scene representation.

    The input is `m objects features` instead of images.

    Args:
        objects: number of objects in one observation.
        features: size of a state vector.
        width: `e`, of the tokens.
        tokens: tokens per object: 1 for states, several for slots.
        depth: projections of the MLP, with ReLU between them.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(
        self,
        *,
        objects: PositiveInt = 4,
        features: PositiveInt = 16,
        width: PositiveInt = 512,
        tokens: PositiveInt = 1,
        depth: PositiveInt = 2,
    ):
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
        """Layout of the tokens of `height` objects with `width` features each.

        Raises:
            ValueError: the encoder was built for another number of features.
        """
        if width != self.image.size[1]:
            raise ValueError(
                f"an object has {width} features, but features={self.image.size[1]}; set encoder.features={width}"
            )
        return Layout(prefix=height * self.tokens)

    def forward(self, states: Float[Tensor, "m objects features"]) -> Float[Tensor, "m n e"]:
        """Encode the state vectors of a batch of observations.

        Raises:
            ValueError: they have another number of features.
        """
        self.layout(*states.shape[-2:])
        return self.layers(states).unflatten(-1, (self.tokens, self.width)).flatten(1, 2)
