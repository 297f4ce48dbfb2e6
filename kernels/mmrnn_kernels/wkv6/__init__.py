"""WKV-6, the time mixing of RWKV-6 (Finch; Peng et al. 2024, arXiv:2404.05892). README.md has the mathematics."""

from jaxtyping import Float, Int
from torch import Tensor

from ..common.operator import WKVOperator
from ..common.segments import Segments, with_cu_seqlens
from ..dispatch import Operator
from . import triton
from .chunked import wkv6_chunked
from .cpu import unavailable_reason, wkv6_cpu
from .reference import wkv6_reference

PADDING = (0.0, 0.0, 0.0, float("-inf"))
"""Values of r, k, v, w at a padded position: k = 0 and a decay of one leave the state unchanged."""

OPERATOR = WKVOperator(
    Operator(
        "wkv6",
        {
            "triton": triton.wkv6_triton,
            "cpu": with_cu_seqlens("wkv6", wkv6_cpu, PADDING),
            "chunked": with_cu_seqlens("wkv6", wkv6_chunked, PADDING),
            "reference": with_cu_seqlens("wkv6", wkv6_reference, PADDING),
        },
        {"triton": triton.unavailable_reason, "cpu": unavailable_reason},
    ),
    r="b t h k",
    k="b t h k",
    v="b t h v",
    w="b t h k",
    u="h k",
)


def wkv6(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "b t h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "n h k v"] | None = None,
    *,
    cu_seqlens: Int[Tensor, " edges"] | Segments | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """Compute the Finch recurrence (arXiv:2404.05892, section 4.2).

    `y_t = r_t (S_t + diag(u) k_t^T v_t)`, `S_{t+1} = diag(decay_t) S_t + k_t^T v_t`

    **`w` IS NOT THE DECAY AND NOT ITS LOGARITHM.** It is the pre-activation that the network computes, any real
    number: `decay = exp(-exp(w))`. Other libraries want the log-decay, `-exp(w)`.

    Args:
        state: initial S, rows are keys and columns values; zero if not given.
        cu_seqlens: `[0, ..., t]`, edges of the segments of a single row (b = 1). Each segment has an initial state of
            its own (n = segments; without cu_seqlens n = b). `Segments.of(cu_seqlens)` prepares them for several calls.
        backend: `auto`, `triton` (on a GPU), `cpu` (native code, built on first use), `chunked` or `reference`.

    Returns:
        y in the type of v, and the final S. Sums and states are fp32 (fp64 if one input is fp64). Gradients reach
        every input through both, once: second derivatives need `backend="reference"`, which `auto` takes by itself
        inside `torch.func` transforms and forward-mode AD.

    Raises:
        TypeError: an input is no tensor, or none of fp16, bf16, fp32, fp64; cu_seqlens is no int32 or int64 tensor.
        ValueError: sizes do not agree, cu_seqlens does not fit, or the backend is unknown.
        RuntimeError: the backend that was asked for cannot run on these inputs.
    """
    return OPERATOR(backend, cu_seqlens, r, k, v, w, u, state)
