"""Largest sizes that the kernels take."""

MAX_MIXTURES = 6
"""Mixtures of `lerp`: each has kernel arguments of its own."""

MAX_HEAD_SIZE = 1024
"""Values of a head in `norm_gate`."""
