"""Limit of the caches of oneDNN, the library of bf16 products on a CPU."""

import os

CAPACITY = 256
"""Compiled products that each cache keeps; a step of a small model has about 40, for each length of its rows."""

VARIABLES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
"""Settings of torch and of oneDNN, which have no other interface; they are read at the first product."""


def limit_primitive_caches() -> None:
    """Let torch and oneDNN keep `CAPACITY` compiled products each, in place of 1024; a value that is set stays.

    A product is compiled for its shape, so that packed rows, each of another length, fill the caches, whose entries
    fragment the memory of the activations: resident memory of the default model grows from 1.2 to 2.1 GiB in 80 steps,
    and with this limit to 1.5 GiB, in the same time (47 and 45 s of CPU time).
    """
    for name in VARIABLES:
        os.environ.setdefault(name, str(CAPACITY))
