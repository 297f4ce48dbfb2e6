"""Size of the state of a backbone."""

from math import prod

from mmrnn.types import Backbone


def state_bytes(backbone: Backbone) -> tuple[int, int]:
    """Return the bytes of a sample's state that do not depend on its length, and those that each token adds."""
    state = backbone.state(1)
    if backbone.recurrent or not state.layers:
        return state.nbytes, 0
    # Caches are empty along the axis on which tokens are added to them.
    tensors = [value for layer in state.layers for value in layer.values()]
    caches = [value for value in tensors if not value.numel()]
    constant = sum(value.nbytes for value in tensors if value.numel())
    return constant, sum(cache.element_size() * prod(length or 1 for length in cache.shape) for cache in caches)
