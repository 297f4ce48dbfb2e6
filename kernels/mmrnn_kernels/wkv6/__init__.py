"""WKV-6, the time mixing of RWKV-6 (Finch; Peng et al. 2024, arXiv:2404.05892). The maths is in README.md."""

from jaxtyping import Float, Int
from torch import Tensor

from ..dispatch import Op
from ..inputs import agree
from ..segments import packed
from .chunked import chunked
from .cpu import blocked as no_cpu
from .cpu import cpu
from .reference import reference
from .triton import blocked as no_triton
from .triton import triton

# A position with k = 0 and a decay of one (w = -inf) leaves the state as it is.
FILL = (0.0, 0.0, 0.0, float("-inf"))

IMPLS = {"cpu": cpu, "chunked": chunked, "reference": reference}
PACKED = {name: packed("wkv6", run, FILL) for name, run in IMPLS.items()}
OP = Op("wkv6", {"triton": triton, **PACKED}, {"triton": no_triton, "cpu": no_cpu})


def wkv6(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "b t h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "n h k v"] | None = None,
    *,
    cu_seqlens: Int[Tensor, " bounds"] | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """`y_t = r_t (S_t + diag(u) k_t^T v_t)`, `S_{t+1} = diag(decay_t) S_t + k_t^T v_t`.

    **`w` IS NOT THE DECAY AND NOT ITS LOGARITHM.** It is the pre-activation that the network computes, any real
    number: `decay = exp(-exp(w))`. Other libraries want the log-decay, `-exp(w)`.

    Args:
        state: what S starts from, rows are keys and columns values; zero if not given.
        cu_seqlens: `[0, ..., t]`, where the segments of a single row (b = 1) begin and end. S starts anew at each
            of them, and there is one state a segment (n = segments; without cu_seqlens n = b).
        backend: `auto`, `triton` (on a GPU), `cpu` (native code, built on first use), `chunked` or `reference`.

    Returns:
        y in the type of v, and the final S. Sums and states are fp32 (fp64 as soon as one input is fp64). Gradients
        reach every input through both.

    Raises:
        ValueError: sizes that do not agree, bounds that do not fit, an unknown backend.
        RuntimeError: the backend that was asked for cannot run on these inputs.
    """
    n = "b" if cu_seqlens is None else "n"
    agree(
        "wkv6",
        r=("b t h k", r),
        k=("b t h k", k),
        v=("b t h v", v),
        w=("b t h k", w),
        u=("h k", u),
        state=(f"{n} h k v", state),
    )
    return OP(backend, r, k, v, w, u, state, cu_seqlens)
