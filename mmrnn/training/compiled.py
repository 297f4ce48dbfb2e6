"""Compilation of the blocks of a backbone."""

import torch

from mmrnn.training.distributed.units import blocks
from mmrnn.types import Backbone

MAX_VARIANTS = 16
"""Versions of a block that are compiled: the first block and others, packed rows and single ones, training and not."""


def compile_blocks(backbone: Backbone, *, backend: str = "inductor", fullgraph: bool = False) -> None:
    """Compile every block in place, for inputs of any length; names and results stay the same.

    Blocks alike share their code, so that the time does not grow with the depth. A block that has been compiled
    `MAX_VARIANTS` times runs uncompiled from then on: on a CPU, packed rows are read in groups of similar lengths, and
    each set of groups is a version.

    Args:
        backend: of `torch.compile`.
        fullgraph: raise where a block cannot be compiled as a whole.
    """
    torch._dynamo.config.recompile_limit = MAX_VARIANTS
    for block in blocks(backbone):
        block.compile(backend=backend, fullgraph=fullgraph, dynamic=True)
