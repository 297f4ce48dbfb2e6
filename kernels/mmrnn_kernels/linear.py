"""x W^T + b on a CPU without gradients, by whichever library is fastest for it; the same numbers as torch's own."""

import time
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from . import step

FEW = 8
"""Up to so many rows a product is bound by the memory that the weights lie in, not by arithmetic."""

MANY = 128
"""From so many rows on, packing a weight costs little beside the product."""


def plain_mode(*tensors: Tensor) -> bool:
    """Nothing but numbers is asked for: plain CPU tensors, no gradients, no autocast, no tracing."""
    return not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch.is_autocast_enabled("cpu")
        or any(x.device.type != "cpu" or type(x) not in (Tensor, torch.nn.Parameter) for x in tensors)
    )


class Pack:
    """A packed copy of a weight, made anew whenever the weight was written to, moved or replaced.

    It doubles the memory of the weight. Writing through `weight.data` is not noticed. Copies and pickles of it start
    empty.
    """

    def __init__(self):
        self.mark, self.weight = None, None

    def of(self, weight: Tensor, rows: int) -> Tensor:
        version = 0 if weight.is_inference() else weight._version
        mark = (weight.data_ptr(), version, weight.dtype, weight.shape)
        if self.mark != mark:
            self.weight = None  # never two copies
            self.mark, self.weight = mark, pack(weight.detach(), rows)
        return self.weight

    def __deepcopy__(self, memo: dict) -> "Pack":
        return Pack()

    def __reduce__(self) -> tuple[type["Pack"], tuple[()]]:
        return Pack, ()


def linear(
    x: Float[Tensor, "*b in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, " out"] | None = None,
    kept: Pack | None = None,
) -> Float[Tensor, "*b out"]:
    """The same as `torch.nn.functional.linear`.

    Without gradients on a CPU, in fp32 and bf16:
    - a few rows are multiplied by native code that reads the weight in place;
    - many rows in fp32 by oneDNN from a packed copy that lives for this call only, on processors where torch's own
      library is slower by more than packing costs (AMD with AVX-512, where MKL takes an older path). Packing is a
      thirtieth of the work at 2048 rows, so nothing is kept, doubles the memory or grows stale;
    - with `kept`, from the packed copy that is kept there: in bf16 where oneDNN has it on this processor (not with
      AVX2 alone), in fp32 on the processors named above.
    """
    if not plain_mode(x, weight) or x.dtype != weight.dtype or weight.dtype not in step.DTYPES or not x.numel():
        return F.linear(x, weight, bias)
    rows = x.numel() // x.shape[-1]
    exact = weight.dtype == torch.float32
    if kept is not None and rows > 1 and (is_faster() if exact else can_pack(weight.dtype)):
        return multiply(x, kept.of(weight, rows), bias)
    if rows <= FEW and x.shape[-1] % step.MULTIPLE == 0 and weight.is_contiguous() and step.blocked() is None:
        y = step.linear(x.reshape(rows, -1), weight).view(*x.shape[:-1], -1)
        return y if bias is None else y + bias
    if rows >= MANY and exact and is_faster():
        return multiply(x, pack(weight, rows), bias)
    return F.linear(x, weight, bias)


def pack(weight: Float[Tensor, "out in"], rows: int) -> Tensor:
    """A copy in the order in which oneDNN multiplies it; only `multiply` can read it."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)


def multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


@cache
def can_pack(dtype: torch.dtype = torch.float32) -> bool:
    """Whether oneDNN multiplies packed weights of this type on this processor.

    Its private operators are tried, as a torch may have none, or others than when this was written; bf16 needs more
    than AVX2.
    """
    x, weight, bias = torch.eye(2, 16), torch.arange(48.0).view(3, 16), torch.ones(3)
    x, weight, bias = (tensor.to(dtype) for tensor in (x, weight, bias))
    try:
        return torch.equal(multiply(x, pack(weight, 2), bias), F.linear(x, weight, bias))
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


@cache
def is_faster() -> bool:
    """Whether packing for one call is clearly faster in fp32 on this processor: measured once, in 20 ms."""
    if not can_pack():
        return False
    x, weight = torch.ones(256, 512), torch.ones(512, 512)
    return 1.25 * seconds(lambda: multiply(x, pack(weight, 256), None)) < seconds(lambda: F.linear(x, weight))


def seconds(work: Callable[[], Tensor]) -> float:
    """The shortest of five."""
    times = []
    for _ in range(5):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)
