"""Visual token compressor of VisualRWKV v7.03: projection and RWKV-7 blocks."""

from torch import nn

from mmrnn.connectors import TokenCompressor
from mmrnn.weights.format import Format, Tensors
from mmrnn.weights.formats.rwkv7 import NAMES, VECTOR

BLOCKS = {
    f"vtc.{theirs}": f"blocks.{ours}" for theirs, ours in NAMES.items() if theirs.startswith(("blocks.", "ln_out."))
}


def keep(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Return the tensors: vectors lose their axes of length one when they are compared with the module's."""
    return tensors


def inverse(tensors: Tensors) -> Tensors:
    """Publish vectors as (1, 1, d)."""
    return {name: value.view(1, 1, -1) if VECTOR.search(name) else value for name, value in tensors.items()}


FORMATS = (
    Format(
        "visualrwkv_vtc",
        TokenCompressor,
        signature=("proj.ln_v.weight", "vtc.ln_out.weight", "vtc.blocks.0.att.r_k"),
        names={"proj.gate.*": "part.gate.*", "proj.o_proj.*": "part.output.*", "proj.ln_v.*": "part.norm.*", **BLOCKS},
        ignored=dict.fromkeys(
            (f"vtc.blocks.0.att.{name}" for name in ("v0", "v1", "v2")), "unused: the first layer has no value residual"
        ),
        adapt=keep,
        inverse=inverse,
    ),
)
