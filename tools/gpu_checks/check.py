"""Check and measured difference."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Difference:
    """Distance of one tensor from the truth.

    Attributes:
        error: largest deviation, relative to the largest entry of the truth; infinite where shapes differ or an
            entry is not finite.
        bound: largest error allowed.
    """

    name: str
    error: float
    bound: float

    @property
    def fits(self) -> bool:
        """The error is within the bound; NaN is not."""
        return self.error <= self.bound

    def __str__(self) -> str:
        return f"{self.name}: {self.error:.1e} > {self.bound:.1e}"


@dataclass(frozen=True)
class Check:
    """One comparison of a device with the CPU.

    Attributes:
        name: `room/subject/case`, unique.
        run: computes on the device and on the CPU, and answers with the differences.
    """

    name: str
    run: Callable[[torch.device], list[Difference]]

    def __call__(self, device: torch.device | str) -> list[Difference]:
        """Run in full precision: fp32 products are not rounded to TF32."""
        torch.manual_seed(0)
        with full_precision():
            return self.run(torch.device(device))


def difference(name: str, found: Tensor, truth: Tensor, bound: float) -> Difference:
    """Compare a tensor with the truth, in fp64 on the CPU."""
    x, y = found.detach().cpu().double(), truth.detach().cpu().double()
    if x.shape != y.shape or not x.isfinite().all():
        return Difference(name, float("inf"), bound)
    return Difference(name, ((x - y).abs().max() / y.abs().max().clamp_min(1e-300)).item(), bound)


def equal(name: str, found: object, truth: object) -> Difference:
    """Compare values that must be the same: the error is 0 or infinite."""
    return Difference(name, 0.0 if found == truth else float("inf"), 0.0)


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 in matrix products and convolutions; the settings of before come back."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
