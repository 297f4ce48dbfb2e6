"""Each position through one of two modules."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def route(
    where: Bool[Tensor, "b t"], first: nn.Module, second: nn.Module, *inputs: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t e"]:
    """`second` of the positions in `where`, `first` of all others; both treat every position by itself."""
    chosen = where.flatten()
    split = [(x.flatten(0, 1)[~chosen][None], x.flatten(0, 1)[chosen][None]) for x in inputs]
    both = torch.cat([first(*(x for x, _ in split)), second(*(y for _, y in split))], dim=1)[0]
    # The positions of `first` come first, each kind in its order; back to where they were.
    return both[chosen.long().argsort(stable=True).argsort()].view(*where.shape, -1)
