"""WKV-5, the time mixing of RWKV-5.2 (Eagle; Peng et al. 2024, arXiv:2404.05892). README.md has the mathematics."""

from jaxtyping import Float, Int
from torch import Tensor

from ..common.dtypes import accumulation_dtype
from ..common.operator import WKVOperator
from ..common.segments import Implementation, Segments, with_cu_seqlens
from ..dispatch import Operator
from ..wkv6 import PADDING
from . import triton
from .chunked import wkv5_chunked
from .cpu import unavailable_reason, wkv5_cpu
from .reference import wkv5_reference


def with_timed_decay(run: Implementation) -> Implementation:
    """Extend `run(*inputs, state)` to `(*inputs, state, cu_seqlens)`.

    In a packed row the decay is expanded to one a position, since padded positions must not decay.
    """
    packed = with_cu_seqlens("wkv5", run, PADDING)

    def expanded(r, k, v, w, u, state, cu_seqlens):
        if cu_seqlens is not None:
            w = w.to(accumulation_dtype(r, k, v, w, u, state)).expand_as(r)
        return packed(r, k, v, w, u, state, cu_seqlens)

    return expanded


OPERATOR = WKVOperator(
    Operator(
        "wkv5",
        {
            "triton": triton.wkv5_triton,
            "cpu": with_timed_decay(wkv5_cpu),
            "chunked": with_timed_decay(wkv5_chunked),
            "reference": with_timed_decay(wkv5_reference),
        },
        {"triton": triton.unavailable_reason, "cpu": unavailable_reason},
    ),
    r="b t h k",
    k="b t h k",
    v="b t h v",
    w="h k",
    u="h k",
)


def wkv5(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "n h k v"] | None = None,
    *,
    cu_seqlens: Int[Tensor, " edges"] | Segments | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """Compute the Eagle recurrence (arXiv:2404.05892, section 4.1): `wkv6` with one decay for all positions.

    `y_t = r_t (S_t + diag(u) k_t^T v_t)`, `S_{t+1} = diag(decay) S_t + k_t^T v_t`

    **`w` IS NOT THE DECAY AND NOT ITS LOGARITHM.** It is the parameter of the network, any real number:
    `decay = exp(-exp(w))`. Other libraries want the log-decay, `-exp(w)`.

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
