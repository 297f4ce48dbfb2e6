"""Compilation of recorded Triton launches for GPUs that are not there, and the figures read from the binaries."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

PAGE = Path(__file__).parents[1] / "docs" / "kernels.md"
NVIDIA_TOOLS = Path(nvidia.__file__).parent / "bin"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
LAUNCH_OPTIONS = ("num_warps", "num_stages", "maxnreg")


@dataclass(frozen=True)
class Launch:
    """A launch of a kernel: grid, arguments, constants and options."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Recorder:
    """Stand-in for a kernel that appends its launches to a list."""

    kernel: Any
    launches: list[Launch]

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.launches.append(Launch(self.kernel, grid, arguments, options))


@dataclass(frozen=True)
class Figures:
    """Figures of a compiled kernel."""

    registers: int
    spilled: int  # bytes
    shared: int  # bytes
    instructions: int | None  # of a warp in one iteration of the longest loop; None on AMD


def record(*modules: ModuleType) -> list[Launch]:
    """Replace the kernels in these modules by recorders, and return the list that their launches go to."""
    launches: list[Launch] = []
    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, triton.JITFunction | Recorder):
                setattr(module, name, Recorder(value.kernel if isinstance(value, Recorder) else value, launches))
    return launches


def compile_launch(launch: Launch, target: str, *, specialize_integers: bool) -> Figures:
    """Compile a launch as a GPU would get it: tensors are aligned to 16 bytes.

    With `specialize_integers` multiples of 16 are known as such, which depends on the length of the sequence.
    """
    names = launch.kernel.arg_names
    arguments = dict(zip(names, launch.arguments, strict=False))
    constants = {name: x for name, x in arguments.items() if x is None} | launch.options
    options = {name: constants.pop(name) for name in LAUNCH_OPTIONS if name in constants}
    signature = {name: "constexpr" if name in constants else argument_type(arguments[name]) for name in names}
    aligned = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name, x in arguments.items()
        if isinstance(x, Tensor) or (specialize_integers and isinstance(x, int) and x % 16 == 0)
    }
    source = ASTSource(launch.kernel, signature, constexprs=constants, attrs=aligned)
    return read_figures(triton.compile(source, target=TARGETS[target], options=options))


def argument_type(x: Tensor | float) -> str:
    """Return Triton's name for the type of an argument."""
    if isinstance(x, int):
        return "i32"
    if isinstance(x, float):
        return "fp32"
    return f"*{dict(zip(DTYPES.values(), DTYPES, strict=True)).get(x.dtype, 'i64')}"


def read_figures(compiled: Any) -> Figures:
    """Read the figures of a compiled kernel from its binary, or on AMD from its assembly."""
    shared = compiled.metadata.shared
    if "cubin" not in compiled.asm:
        text = compiled.asm["amdgcn"]
        registers, spilled = (int(re.search(rf"\.vgpr_{what}:?\s+(\d+)", text)[1]) for what in ("count", "spill_count"))
        return Figures(registers, 4 * spilled, shared, None)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as binary:
        binary.write(compiled.asm["cubin"])
        binary.flush()
        registers = int(re.search(r"REG:(\d+)", run("cuobjdump", "--dump-resource-usage", binary.name))[1])
        listing = run("nvdisasm", "-c", binary.name)
    local = re.findall(r"\b(?:STL|LDL)(?:\.LU)?(?:\.(64|128))?\b", listing)
    return Figures(registers, sum(int(bits or 32) // 8 for bits in local), shared, longest_loop(listing))


def run(tool: str, *arguments: str) -> str:
    """Run one of NVIDIA's tools and return its output."""
    return subprocess.run([NVIDIA_TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def longest_loop(listing: str) -> int:
    """Count the instructions between the label and the backward branch that are furthest apart."""
    labels, count, longest = {}, 0, 0
    for line in map(str.strip, listing.splitlines()):
        if label := re.match(r"(\.L\w+):", line):
            labels[label[1]] = count
        elif instruction := re.match(r"/\*[0-9a-f]+\*/\s+(.*?);", line):
            count += 1
            target = re.search(r"BRA.*?(\.L_\w+)", instruction[1])
            if target and target[1] in labels:
                longest = max(longest, count - labels[target[1]])
    return longest


def write_table(begin: str, end: str, header: str, lines: list[str]) -> None:
    """Replace the table between two marks of the page."""
    before, rest = PAGE.read_text().split(begin)
    table = [f"Triton {triton.__version__}.\n", header, *lines]
    PAGE.write_text(before + begin + "\n".join(table) + "\n" + end + rest.split(end)[1])
