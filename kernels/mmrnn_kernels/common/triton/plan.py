"""Host-side choices that the WKV operators share: chunk sizes, the type of matrix products, launch options."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

CHUNK = 16
"""Positions of a chunk: twice as many take one more level, and more registers than there are."""

RECOMPUTED = 4
"""Positions whose states wait in registers for their gradients, in the recurrent backward kernel."""

MAX_RECURRENT_LENGTH = 16
"""Up to this length the recurrent form is faster than chunks."""


@dataclass(frozen=True)
class CompileMode:
    """Types and target that the kernels are compiled for.

    Attributes:
        dot_type: type that factors of matrix products are rounded to: `bf16`, `tf32`, `ieee` (fp32), or `bf16 emulated`
            in the interpreter.
        target: `cuda`, `hip` or `interpreter`.
        is_hopper: the GPU is an sm_90.
    """

    dot_type: str
    target: str
    is_hopper: bool = field(default=False, kw_only=True)

    @property
    def state_dtype(self) -> torch.dtype:
        """Type of the states that the backward pass stores: they enter products as they are."""
        return torch.bfloat16 if self.dot_type == "bf16" else torch.float32

    @property
    def recurrent_options(self) -> dict[str, int]:
        """Launch options of the recurrent kernels: few warps, since each repeats the work on a position's vectors.

        All registers, since NVIDIA's assembler would rather spill some bytes than use them.
        """
        return {"num_warps": 2, **self.all_registers}

    @property
    def all_registers(self) -> dict[str, int]:
        """Launch option for as many registers a thread as there are."""
        return {"maxnreg": 255} if self.target == "cuda" else {}


def compile_mode(*inputs: Tensor) -> CompileMode:
    """Choose the mode: bf16 is multiplied as bf16, fp16 as TF32 (which has the range of states), fp32 as fp32."""
    dtypes = {x.dtype for x in inputs}
    if inputs[0].device.type != "cuda":
        return CompileMode("bf16 emulated" if dtypes == {torch.bfloat16} else "ieee", "interpreter")
    if torch.version.hip:
        return gpu_mode(dtypes, "hip")
    return gpu_mode(dtypes, "cuda", is_hopper=torch.cuda.get_device_capability(inputs[0].device)[0] == 9)


def gpu_mode(dtypes: set[torch.dtype], target: str, is_hopper: bool = False) -> CompileMode:
    """Choose the mode on a GPU."""
    exact = "ieee" if torch.float32 in dtypes or target == "hip" else "tf32"
    return CompileMode("bf16" if dtypes == {torch.bfloat16} else exact, target, is_hopper=is_hopper)


def recurrent_backward_keys(size: int) -> int:
    """Return the rows of the state for one program of the recurrent backward kernel, which holds RECOMPUTED states."""
    return 2**10 // size
