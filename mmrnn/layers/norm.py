"""RMS norms of language models beside that of torch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ZeroCenteredRMSNorm(nn.RMSNorm):
    """RMS norm whose factor is 1 + weight, computed in fp32 (Gemma, Qwen3-Next): weight decay pulls it towards 1."""

    def __init__(self, width: int, eps: float):
        super().__init__(width, eps=eps)

    def reset_parameters(self) -> None:
        """Initialise in place: a factor of one."""
        nn.init.zeros_(self.weight)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Normalise the last axis."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(dtype), self.normalized_shape, 1 + self.weight.to(dtype), self.eps).to(x.dtype)


class GatedRMSNorm(nn.RMSNorm):
    """RMS norm in fp32, multiplied by an activated gate afterwards (Gated DeltaNet).

    Args:
        width: of the last axis.
        eps: added to the mean square.
        sigmoid: the gate passes a sigmoid (Kimi Linear) in place of SiLU.
    """

    def __init__(self, width: int, eps: float, *, sigmoid: bool = False):
        super().__init__(width, eps=eps)
        self.sigmoid = sigmoid

    def forward(self, x: Float[Tensor, "*b d"], gate: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Normalise the last axis and apply the gate."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        y = F.rms_norm(x.to(dtype), self.normalized_shape, self.weight.to(dtype), self.eps)
        factor = torch.sigmoid(gate.to(dtype)) if self.sigmoid else F.silu(gate.to(dtype))
        return (y * factor).to(x.dtype)


def rms_norm(width: int, eps: float, zero_centered: bool) -> nn.Module:
    """Return an RMS norm with the factor 1 + weight, or weight."""
    return ZeroCenteredRMSNorm(width, eps) if zero_centered else nn.RMSNorm(width, eps=eps)
