"""x W^T + b on a CPU without gradients, by the library that is fastest for it."""

import time
import weakref
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float, Int8
from torch import Tensor
from torch.nn import functional as F

from . import decode_step
from .common.cpu_features import has_avx512
from .transforms import is_transformed

MIN_PACKED_ROWS = 128
"""From so many rows on, packing a weight costs little beside the product."""

MAX_IN_PLACE_ROWS = 8
"""Up to so many rows reading the weight bounds the product, not arithmetic."""


def is_plain_inference(*tensors: Tensor) -> bool:
    """Return whether only values are computed: plain CPU tensors, no derivatives, no autocast, no tracing."""
    return not (
        torch.is_grad_enabled()
        or is_transformed()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch.is_autocast_enabled("cpu")
        or any(x.device.type != "cpu" or type(x) not in (Tensor, torch.nn.Parameter) for x in tensors)
    )


class PackedWeight:
    """Packed copy of a weight, made again whenever the weight was written to, moved or replaced.

    It doubles the memory of the weight. Writing through `weight.data` is not noticed. Copies and pickles start empty.
    Several threads may use one at the same time.
    """

    def __init__(self):
        self.entry: tuple[weakref.ref[Tensor], tuple, Tensor] | None = None

    def get(self, weight: Tensor, rows: int) -> Tensor:
        """Return the packed copy of this weight, for products with about `rows` rows."""
        version = 0 if weight.is_inference() else weight._version
        signature = (weight.data_ptr(), version, weight.dtype, weight.shape)
        entry = self.entry  # read once: another thread may replace it
        # An address alone says little: a new weight may have that of one that was freed.
        if entry is None or entry[0]() is not weight or entry[1] != signature:
            entry = self.entry = None  # freed first, so that one thread never holds two copies
            entry = self.entry = weakref.ref(weight), signature, pack(weight.detach(), rows)
        return entry[2]

    def __deepcopy__(self, memo: dict) -> "PackedWeight":
        return PackedWeight()

    def __reduce__(self) -> tuple[type["PackedWeight"], tuple[()]]:
        return PackedWeight, ()


def linear(
    x: Float[Tensor, "*b in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, " out"] | None = None,
    packed_weight: PackedWeight | None = None,
) -> Float[Tensor, "*b out"]:
    """Compute the result of `torch.nn.functional.linear`, up to rounding.

    Without gradients on a CPU, in fp32 and bf16:
    - a few rows are multiplied by native code that reads the weight in place;
    - many rows in fp32 by oneDNN from a copy packed for this call, on processors where torch's own library is slower by
      more than packing costs (AMD with AVX-512, where MKL takes an older path). Packing is a thirtieth of the work at
      2048 rows;
    - with `packed_weight`, from that packed copy: in bf16 if oneDNN has it on this processor (not with AVX2 alone), in
      fp32 on the processors above.
    """
    if not is_plain_inference(x, weight) or x.dtype != weight.dtype or weight.dtype not in decode_step.DTYPES:
        return F.linear(x, weight, bias)
    if not x.numel():
        return F.linear(x, weight, bias)
    rows = x.numel() // x.shape[-1]
    is_fp32 = weight.dtype == torch.float32
    if packed_weight is not None and rows > 1 and (is_faster() if is_fp32 else can_pack(weight.dtype)):
        return multiply(x, packed_weight.get(weight, rows), bias)
    if rows <= max_in_place_rows(weight.dtype) and can_read_in_place(x, weight):
        y = decode_step.few_rows_linear(x.reshape(rows, -1), weight).view(*x.shape[:-1], -1)
        return y if bias is None else y + bias
    if rows >= MIN_PACKED_ROWS and is_fp32 and is_faster():
        return multiply(x, pack(weight, rows), bias)
    return F.linear(x, weight, bias)


def codes_linear(
    x: Float[Tensor, "*b in"], codes: Int8[Tensor, "out in"], scales: Float[Tensor, " out"]
) -> Float[Tensor, "*b out"]:
    """Compute x W^T with W = codes * scales.

    Without gradients on a CPU a few rows are multiplied by native code that reads the codes in place.
    """
    rows = x.numel() // x.shape[-1]
    if (
        0 < rows <= MAX_IN_PLACE_ROWS
        and is_plain_inference(x, codes, scales)
        and x.dtype in decode_step.DTYPES
        and scales.is_contiguous()
        and can_read_in_place(x, codes)
    ):
        y = decode_step.few_rows_linear(x.reshape(rows, -1), codes, scales.to(torch.float32))
        return y.view(*x.shape[:-1], -1)
    y = F.linear(x, codes.to(x.dtype))
    return y * scales.to(y.dtype)


def max_in_place_rows(dtype: torch.dtype) -> int:
    """Return up to how many rows the native code, which reads the weight once and in place, is the fastest."""
    return MIN_PACKED_ROWS - 1 if dtype == torch.float32 and has_avx512() else MAX_IN_PLACE_ROWS


def can_read_in_place(x: Tensor, weight: Tensor) -> bool:
    """Return whether the native code takes these operands."""
    return (
        x.shape[-1] % decode_step.MULTIPLE == 0 and weight.is_contiguous() and decode_step.unavailable_reason() is None
    )


def pack(weight: Float[Tensor, "out in"], rows: int) -> Tensor:
    """Copy a weight into the layout of oneDNN, which only `multiply` can read."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)


def multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Compute x W^T + b from a packed weight."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


@cache
def can_pack(dtype: torch.dtype = torch.float32) -> bool:
    """Return whether oneDNN multiplies packed weights of this type on this processor.

    Its private operators are tried, since another version of torch may have none or different ones; bf16 needs more
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
    """Return whether packing for one call is clearly faster in fp32 on this processor: measured once, in 20 ms."""
    if not can_pack():
        return False
    x, weight = torch.ones(256, 512), torch.ones(512, 512)
    packed_time = shortest_time(lambda: multiply(x, pack(weight, 256), None))
    return 1.25 * packed_time < shortest_time(lambda: F.linear(x, weight))


def shortest_time(work: Callable[[], Tensor]) -> float:
    """Return the shortest of five processor times in seconds."""
    times = []
    for _ in range(5):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)
