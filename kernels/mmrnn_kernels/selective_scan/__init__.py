"""The selective scan of Mamba (Gu and Dao 2023, arXiv:2312.00752). README.md has the mathematics."""

from jaxtyping import Float, Int
from torch import Tensor

from ..common.operator import WKVOperator
from ..common.segments import Segments, with_cu_seqlens
from ..dispatch import Operator
from . import triton
from .chunked import selective_scan_chunked
from .cpu import selective_scan_cpu, unavailable_reason
from .reference import selective_scan_reference

PADDING = (0.0, 0.0, None, 0.0, 0.0)
"""Values of x, dt, b, c at a padded position: with dt = 0 the decay is one and nothing is written."""

OPERATOR = WKVOperator(
    Operator(
        "selective_scan",
        {
            "triton": triton.selective_scan_triton,
            "cpu": with_cu_seqlens("selective_scan", selective_scan_cpu, PADDING),
            "chunked": with_cu_seqlens("selective_scan", selective_scan_chunked, PADDING),
            "reference": with_cu_seqlens("selective_scan", selective_scan_reference, PADDING),
        },
        {"triton": triton.unavailable_reason, "cpu": unavailable_reason},
    ),
    "d s",
    x="b t d",
    dt="b t d",
    a="d s",
    b="b t s",
    c="b t s",
)


def selective_scan(
    x: Float[Tensor, "b t d"],
    dt: Float[Tensor, "b t d"],
    a: Float[Tensor, "d s"],
    b: Float[Tensor, "b t s"],
    c: Float[Tensor, "b t s"],
    state: Float[Tensor, "n d s"] | None = None,
    *,
    cu_seqlens: Int[Tensor, " edges"] | Segments | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "n d s"]]:
    """Compute the selective scan of Mamba (arXiv:2312.00752, algorithm 2).

    `S_{t+1} = exp(dt_t^T a) * S_t + (dt_t x_t)^T b_t`, `y_t = S_{t+1} c_t^T`

    A position is written before it is read. What surrounds the scan in Mamba is left to the caller: `dt` is the step
    size **after** softplus and bias (`>= 0`), `a = -exp(A_log)` (`<= 0`), and `D x` and the gate are added outside.

    Args:
        x: inputs of `d` channels; each has `s` states.
        b: what is written to the states of a channel, the same for all channels.
        c: what is read from them, likewise.
        state: initial S; zero if not given.
        cu_seqlens: `[0, ..., t]`, edges of the segments of a single row (b = 1). Each segment has an initial state of
            its own (n = segments; without cu_seqlens n = b). `Segments.of(cu_seqlens)` prepares them for several calls.
        backend: `auto`, `triton` (on a GPU), `cpu` (native code, built on first use), `chunked` or `reference`.

    Returns:
        y in the type of x, and the final S. Sums and states are fp32 (fp64 if one input is fp64). Gradients reach
        every input through both, once: second derivatives need `backend="reference"`, which `auto` takes by itself
        inside `torch.func` transforms and forward-mode AD.

    Raises:
        TypeError: an input is no tensor, or none of fp16, bf16, fp32, fp64; cu_seqlens is no int32 or int64 tensor.
        ValueError: sizes do not agree, cu_seqlens does not fit, or the backend is unknown.
        RuntimeError: the backend that was asked for cannot run on these inputs.
    """
    return OPERATOR(backend, cu_seqlens, x, dt, a, b, c, state)
