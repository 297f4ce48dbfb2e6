"""WKV-7, the time mixing of RWKV-7 (Goose; Peng et al. 2025, arXiv:2503.14456). README.md has the mathematics."""

from jaxtyping import Float, Int
from torch import Tensor

from ..common.operator import WKVOperator
from ..common.segments import Segments, with_cu_seqlens
from ..dispatch import Operator
from . import triton
from .chunked import PADDING, wkv7_chunked
from .cpu import unavailable_reason, wkv7_cpu
from .reference import wkv7_reference

OPERATOR = WKVOperator(
    Operator(
        "wkv7",
        {
            "triton": triton.wkv7_triton,
            "cpu": with_cu_seqlens("wkv7", wkv7_cpu, PADDING),
            "chunked": with_cu_seqlens("wkv7", wkv7_chunked, PADDING),
            "reference": with_cu_seqlens("wkv7", wkv7_reference, PADDING),
        },
        {"triton": triton.unavailable_reason, "cpu": unavailable_reason},
    ),
    r="b t h k",
    w="b t h k",
    k="b t h k",
    v="b t h v",
    a="b t h k",
    b="b t h k",
)


def wkv7(
    r: Float[Tensor, "b t h k"],
    w: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "n h k v"] | None = None,
    *,
    cu_seqlens: Int[Tensor, " edges"] | Segments | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """Compute the Goose recurrence (arXiv:2503.14456).

    `S_{t+1} = diag(decay_t) S_t + b_t^T (a_t S_t) + k_t^T v_t`, `y_t = r_t S_{t+1}`

    A position is written before it is read. RWKV-7 has `a = -kappa`, `b = kappa * rate` with `|kappa| = 1` and rates in
    (0, 1): the share `rate` of what the state holds at `kappa` is removed.

    **`w` IS NOT THE DECAY AND NOT ITS LOGARITHM.** It is the pre-activation that the network computes, any real
    number (RWKV-7 stays below -1/2): `decay = exp(-exp(w))`. Other libraries want the log-decay, `-exp(w)`.

    Args:
        state: initial S, rows are keys and columns values (RWKV-LM keeps the transpose); zero if not given.
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
    return OPERATOR(backend, cu_seqlens, r, w, k, v, a, b, state)
