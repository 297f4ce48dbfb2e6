"""What the Triton kernels compile to, without a GPU: writes the table of docs/kernels.md.

    python benchmarks/kernels.py          the usual form: K = V = 64, bf16
    python benchmarks/kernels.py --all    every size and type

The operators run on the CPU as they would on a GPU, but for their launches, which are written down and compiled for
sm_80, sm_90 and gfx942. Read from the binaries: registers, spills, shared memory, and the instructions of one warp in
the loop over chunks, times warps, per position and head.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmrnn_kernels.wkv6.triton import SIZES, chunks, ops, plan, stream
from mmrnn_kernels.wkv7.triton import chunks as chunks7
from mmrnn_kernels.wkv7.triton import ops as ops7
from mmrnn_kernels.wkv7.triton import plan as plan7
from mmrnn_kernels.wkv7.triton import stream as stream7

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "kernels.md"
BEGIN, END = "<!-- written by benchmarks/kernels.py -->\n", "<!-- until here -->\n"
TOOLS = Path(nvidia.__file__).parent / "bin"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
HEADER = """\
| operator | target | K = V | inputs | kernel | warps | registers | spilled | shared | instructions |
|---|---|---|---|---|---|---|---|---|---|"""
OPERATORS = ("wkv6", "wkv5", "wkv7")
HEADS = 64


@dataclass(frozen=True)
class Launch:
    """Of a kernel: its grid, what it is given, and what it is compiled for."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        flags = [flag.lower() for flag in ("STATES", "REVERSE") if self.options.get(flag)]
        return " ".join([self.kernel.__name__.removesuffix("_kernel"), *flags])


@dataclass(frozen=True)
class Recorder:
    """In place of a kernel."""

    kernel: Any
    launches: list[Launch]

    def __getitem__(self, grid):
        return lambda *given, **options: self.launches.append(Launch(self.kernel, grid, given, options))


@dataclass(frozen=True)
class Row:
    """One kernel in one of its forms, and what it compiled to."""

    operator: str
    kernel: str
    type: str
    size: int
    target: str
    warps: int
    registers: int
    spilled: int  # bytes
    shared: int  # bytes
    instructions: float | None  # per position and head


def record(target: str) -> list[Launch]:
    """From here on kernels are not run, and what the host asks about the device it is told about the target."""
    launches: list[Launch] = []
    for module in (chunks, stream, chunks7, stream7):
        for name, value in list(vars(module).items()):
            if isinstance(value, triton.JITFunction | Recorder):
                setattr(module, name, Recorder(value.kernel if isinstance(value, Recorder) else value, launches))
    backend = TARGETS[target].backend
    plan.mode = lambda *inputs: plan.compiled({x.dtype for x in inputs}, backend, hopper=target == "sm_90")
    plan7.mode = lambda *inputs: plan7.compiled({x.dtype for x in inputs}, backend)
    plan.processors = lambda _: 1
    return launches


def launches(operator: str, size: int, type: str, target: str) -> dict[str, Launch]:
    """Every kernel that sequences of any length need, by name. Decays, the bonus and states are fp32."""
    found = record(target)
    for length in (8, 32):
        row, state = (1, length, HEADS, size), torch.zeros(1, HEADS, size, size)
        x, w = torch.zeros(row, dtype=TYPES[type]), torch.zeros(row[2:] if operator == "wkv5" else row)
        if operator == "wkv7":
            op, inputs = ops7, (x, w, x, x, x, x, state, None)
        else:
            op, inputs = ops, (x, x, x, w, torch.zeros(HEADS, size), state, None)
        op.forward(*inputs)
        op.backward(*inputs, x, state)
    return {launch.name: launch for launch in found}


def measure(launch: Launch, operator: str, size: int, type: str, target: str) -> Row:
    """Compile one launch as the operator would."""
    names = launch.kernel.arg_names
    given = dict(zip(names, launch.arguments, strict=False))
    known = {name: x for name, x in given.items() if x is None} | launch.options
    options = {name: known.pop(name) for name in ("num_warps", "num_stages", "maxnreg") if name in known}
    signature = {name: "constexpr" if name in known else kind(given[name]) for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in names if signature[name].startswith("*")}
    source = ASTSource(launch.kernel, signature, constexprs=known, attrs=aligned)
    built = triton.compile(source, target=TARGETS[target], options=options)
    programs, positions = launch.grid[1], known.get("C", 1)
    measured = figures(built, options["num_warps"] * programs / positions)
    return Row(operator, launch.name, type, size, target, options["num_warps"], *measured)


def kind(x: Tensor | int) -> str:
    if isinstance(x, int):
        return "i32"
    return f"*{dict(zip(TYPES.values(), TYPES, strict=True)).get(x.dtype, 'i64')}"


def figures(built: Any, share: float) -> tuple[int, int, int, float | None]:
    """Registers, bytes spilled, bytes shared and, on NVIDIA, instructions of a turn of the loop, times `share`."""
    shared = built.metadata.shared
    if "cubin" not in built.asm:
        text = built.asm["amdgcn"]
        registers, spilled = (int(re.search(rf"\.vgpr_{what}:?\s+(\d+)", text)[1]) for what in ("count", "spill_count"))
        return registers, 4 * spilled, shared, None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as binary:
        binary.write(built.asm["cubin"])
        binary.flush()
        registers = int(re.search(r"REG:(\d+)", run("cuobjdump", "--dump-resource-usage", binary.name))[1])
        listing = run("nvdisasm", "-c", binary.name)
    local = re.findall(r"\b(?:STL|LDL)(?:\.LU)?(?:\.(64|128))?\b", listing)
    return registers, sum(int(bits or 32) // 8 for bits in local), shared, longest_loop(listing) * share


def run(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def longest_loop(listing: str) -> int:
    """Instructions between the label and the backward branch that lie furthest apart."""
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


def rows(operators: Iterable[str], targets: Iterable[str], sizes: Iterable[int], types: Iterable[str]) -> Iterator[Row]:
    for operator, target, size, type in product(operators, targets, sizes, types):
        for launch in launches(operator, size, type, target).values():
            yield measure(launch, operator, size, type, target)


def line(row: Row) -> str:
    count = "" if row.instructions is None else f"{row.instructions:.0f}"
    measured = (row.warps, row.registers, row.spilled, row.shared, count)
    return f"| {' | '.join(map(str, (row.operator, row.target, row.size, row.type, row.kernel, *measured)))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every size and type")
    parser.add_argument("--json", action="store_true", help="print the rows instead")
    parser.add_argument("--operator", nargs="+", choices=OPERATORS, default=OPERATORS)
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--size", nargs="+", type=int, choices=SIZES)
    parser.add_argument("--type", nargs="+", choices=TYPES)
    given = parser.parse_args()
    sizes, types = (SIZES, TYPES) if given.all else ((64,), ("bf16",))
    found = rows(given.operator, given.target, given.size or sizes, given.type or types)
    if given.json:
        print(json.dumps([asdict(row) | {"line": line(row)} for row in found]))
        return
    before, rest = PAGE.read_text().split(BEGIN)
    table = [f"Triton {triton.__version__}.\n", HEADER, *map(line, found)]
    PAGE.write_text(before + BEGIN + "\n".join(table) + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
