"""Gated delta rule (arXiv:2412.06464) and Kimi Delta Attention (arXiv:2510.26692). README.md has the mathematics."""

from functools import partial

from jaxtyping import Float, Int
from torch import Tensor

from ..common.operator import WKVOperator
from ..common.segments import Segments, with_cu_seqlens
from ..dispatch import Operator
from ..wkv7.chunked import LOG_PADDING
from . import triton
from .chunked import log_wkv7_chunked
from .cpu import log_wkv7_cpu, unavailable_reason
from .identity import through_wkv7
from .reference import PADDING, delta_reference, timed_reference


def make_operator(name: str, g: str) -> WKVOperator:
    """Return the operator of one name, whose log-decays have the axes `g`."""
    packed = {
        "cpu": with_cu_seqlens(name, log_wkv7_cpu, LOG_PADDING),
        "chunked": with_cu_seqlens(name, log_wkv7_chunked, LOG_PADDING),
    }
    implementations = {
        "triton": partial(through_wkv7, triton.log_wkv7_triton),
        **{backend: partial(through_wkv7, run) for backend, run in packed.items()},
        "reference": partial(timed_reference, with_cu_seqlens(name, delta_reference, PADDING)),
    }
    operator = Operator(name, implementations, {"triton": triton.unavailable_reason, "cpu": unavailable_reason})
    return WKVOperator(operator, q="b t h k", k="b t h k", v="b t h v", g=g, beta="b t h")


GATED_DELTA_RULE = make_operator("gated_delta_rule", "b t h")
KDA = make_operator("kda", "b t h k")


def gated_delta_rule(
    q: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    g: Float[Tensor, "b t h"],
    beta: Float[Tensor, "b t h"],
    state: Float[Tensor, "n h k v"] | None = None,
    *,
    cu_seqlens: Int[Tensor, " edges"] | Segments | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """Compute the gated delta rule (arXiv:2412.06464): one decay a head.

    `S' = exp(g_t) S_t`, `S_{t+1} = S' + beta_t k_t^T (v_t - k_t S')`, `y_t = q_t S_{t+1}`

    Nothing is normalised and `q` is not scaled. The published models give `k` and `q` unit length and multiply `q` by
    `1 / sqrt(K)`; with other keys the state may grow.

    Args:
        g: logarithm of the decay, at most 0; values above 0 count as 0. Its gradient is that of the logarithm, right at
            0 too.
        beta: share of what the state holds at `k` that is replaced by `v`.
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
    return GATED_DELTA_RULE(backend, cu_seqlens, q, k, v, g, beta, state)


def kda(
    q: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    g: Float[Tensor, "b t h k"],
    beta: Float[Tensor, "b t h"],
    state: Float[Tensor, "n h k v"] | None = None,
    *,
    cu_seqlens: Int[Tensor, " edges"] | Segments | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """Compute the delta rule of Kimi Linear (arXiv:2510.26692): `gated_delta_rule` with a decay for each key channel.

    `S' = diag(exp(g_t)) S_t`, `S_{t+1} = S' + beta_t k_t^T (v_t - k_t S')`, `y_t = q_t S_{t+1}`

    Arguments, results and errors are those of `gated_delta_rule`.
    """
    return KDA(backend, cu_seqlens, q, k, v, g, beta, state)
