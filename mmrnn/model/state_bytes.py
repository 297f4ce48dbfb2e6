"""Size of the state of a backbone."""

from math import prod

from mmrnn.types import Backbone


def state_bytes(backbone: Backbone) -> tuple[int, int]:
    """Return the bytes of a sample's state that do not depend on its length, and those that each token adds."""
    state = backbone.state(1)
    if backbone.recurrent or not state.layers:
        return state.nbytes, 0
    # Caches are empty along the axis on which tokens are added to them.
    caches = [cache for layer in state.layers for cache in layer.values() if not cache.numel()]
    return 0, sum(cache.element_size() * prod(length or 1 for length in cache.shape) for cache in caches)
