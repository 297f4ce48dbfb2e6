"""What the Triton kernels compile to, without a GPU: writes the tables of docs/kernels.md.

    python benchmarks/kernels.py          the usual form: WKV-6, K = V = 64, bf16
    python benchmarks/kernels.py --all    every size and type, and WKV-5: half an hour

Compiled for sm_80, sm_90 and gfx942 as the operators launch them, read from the binaries: registers, spills, shared
memory, and the instructions of one warp in the loop over chunks, times warps, per position and head.
"""

import argparse
import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmrnn_kernels.wkv6.triton import SIZES, plan
from mmrnn_kernels.wkv6.triton.backward import backward_kernel
from mmrnn_kernels.wkv6.triton.forward import forward_kernel
from mmrnn_kernels.wkv6.triton.recurrent import recurrent_kernel
from mmrnn_kernels.wkv6.triton.states import states_kernel

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "kernels.md"
BEGIN, END = "<!-- written by benchmarks/kernels.py -->\n", "<!-- until here -->\n"
TOOLS = Path(nvidia.__file__).parent / "bin"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
KERNELS = {
    "forward": forward_kernel,
    "states": states_kernel,
    "backward": backward_kernel,
    "recurrent": recurrent_kernel,
}
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
HEADER = """\
| operator | target | K = V | inputs | kernel | warps | registers | spilled | shared | instructions |
|---|---|---|---|---|---|---|---|---|---|"""
HEADS = 64
INPUTS = ("r", "k", "v", "rows", "columns", "dout", "out", "dr", "dk", "dv")


@dataclass(frozen=True)
class Row:
    """One kernel in one of its forms, and what it compiled to."""

    kernel: str
    constant: bool
    type: str
    size: int
    target: str
    warps: int
    registers: int
    spilled: int  # bytes
    shared: int  # bytes
    instructions: float | None  # per position and head


def measure(kernel: str, constant: bool, type: str, size: int, target: str) -> Row:
    """Compile one form of a kernel."""
    mode = plan.compiled({TYPES[type]}, TARGETS[target].backend)
    warps = 4 if kernel == "recurrent" else plan.warps(size, mode)
    wide = 32 if kernel == "recurrent" else plan.tile(size, mode, kernel == "backward")
    known = {"H": HEADS, "K": size, "V": size, "BK": size, "BV": wide}
    known |= {"C": plan.CHUNK, "LEVELS": plan.CHUNK.bit_length() - 1, "PREC": mode.precision, "TARGET": mode.target}
    known |= {"PACKED": False, "CONSTANT": constant, "START": True, "END": True, "REVERSE": False, "PIECES": False}
    known |= {"LEAN": target == "sm_80", "bounds": None, "ends": None}
    function = KERNELS[kernel]
    names = function.arg_names
    known = {name: value for name, value in known.items() if name in names}
    types = dict.fromkeys(("length", "span", "positions", "slots"), "i32") | dict.fromkeys(INPUTS, f"*{type}")
    types["states"] = "*bf16" if mode.states == torch.bfloat16 else "*fp32"
    signature = {name: "constexpr" if name in known else types.get(name, "*fp32") for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in names if signature[name].startswith("*")}
    source = ASTSource(function, signature, constexprs=known, attrs=aligned)
    options = {"num_warps": warps} if kernel == "recurrent" else {"num_warps": warps, "num_stages": 1}
    built = triton.compile(source, target=TARGETS[target], options=options)
    columns = size // known["BV"] if "BV" in known else 1
    positions = 1 if kernel == "recurrent" else plan.CHUNK
    return Row(kernel, constant, type, size, target, warps, *figures(built, warps * columns / positions))


def figures(built, share: float) -> tuple[int, int, int, float | None]:
    """Registers, bytes spilled, bytes shared and, on NVIDIA, instructions of a turn of the loop, times `share`."""
    shared = built.metadata.shared
    if "cubin" not in built.asm:
        text = built.asm["amdgcn"]
        registers, spilled = (int(re.search(rf"\.vgpr_{what}:?\s+(\d+)", text)[1]) for what in ("count", "spill_count"))
        return registers, 4 * spilled, shared, None
    with tempfile.TemporaryDirectory() as folder:
        binary, assembly = Path(folder, "binary"), Path(folder, "assembly")
        binary.write_bytes(built.asm["cubin"])
        assembly.write_text(built.asm["ptx"])
        architecture = re.search(r"\.target (\w+)", built.asm["ptx"])[1]
        notes = run("ptxas", "-v", f"-arch={architecture}", "-o", "/dev/null", assembly, stream="stderr")
        listing = run("nvdisasm", "-c", binary)
    registers = int(re.search(r"Used (\d+) registers", notes)[1])
    spilled = sum(map(int, re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", notes).groups()))
    return registers, spilled, shared, longest_loop(listing) * share


def run(tool: str, *arguments: str | Path, stream: str = "stdout") -> str:
    done = subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True)
    return getattr(done, stream)


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


def rows(targets: list[str], every: bool) -> list[Row]:
    """The usual form of every kernel; or every type and size of WKV-6, and WKV-5 at the usual size."""
    forms = [(constant, size) for constant, sizes in ((False, SIZES), (True, (64,))) for size in sizes]
    return [
        measure(kernel, constant, type, size, target)
        for target in targets
        for constant, size in (forms if every else [(False, 64)])
        for type in (TYPES if every else ["bf16"])
        for kernel in KERNELS
    ]


def line(row: Row) -> str:
    operator = "wkv5" if row.constant else "wkv6"
    count = "" if row.instructions is None else f"{row.instructions:.0f}"
    measured = (row.warps, row.registers, row.spilled, row.shared, count)
    return f"| {' | '.join(map(str, (operator, row.target, row.size, row.type, row.kernel, *measured)))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="TARGET", choices=TARGETS, help="print the rows of one target instead")
    parser.add_argument("--all", action="store_true", help="every size and type, and WKV-5")
    options = parser.parse_args()
    if options.json:
        print(json.dumps([asdict(row) | {"line": line(row)} for row in rows([options.json], options.all)]))
        return
    before, rest = PAGE.read_text().split(BEGIN)
    table = [f"Triton {triton.__version__}.\n", HEADER, *map(line, rows(list(TARGETS), options.all))]
    PAGE.write_text(before + BEGIN + "\n".join(table) + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
