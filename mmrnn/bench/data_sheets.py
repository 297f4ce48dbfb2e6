"""GPUs by the data sheets of their vendors."""

from typing import NamedTuple


class GPU(NamedTuple):
    """Peak of dense bf16 products in FLOPs per second, memory in GiB, and its bandwidth in bytes per second."""

    flops: float
    memory: int
    bandwidth: float


GPUS = {
    "a100_40g": GPU(312e12, 40, 1555e9),
    "a100_80g": GPU(312e12, 80, 2039e9),
    "h100_80g": GPU(989e12, 80, 3350e9),
    "h200_141g": GPU(989e12, 141, 4800e9),
    "b200_180g": GPU(2250e12, 180, 7700e9),
    "l20_48g": GPU(119.5e12, 48, 864e9),
    "l40s_48g": GPU(362e12, 48, 864e9),
    "rtx4090_24g": GPU(165e12, 24, 1008e9),
    "rtx5090_32g": GPU(209e12, 32, 1792e9),
    "mi250x_128g": GPU(383e12, 128, 3277e9),
    "mi300x_192g": GPU(1307e12, 192, 5300e9),
}
"""SXM modules where there are several; the data sheets name the bandwidth of the memory."""
