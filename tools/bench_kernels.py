"""Write the table of the recurrent kernels in docs/kernels.md: what they compile to, without a GPU.

    python tools/bench_kernels.py          K = V = 64 (selective_scan: 16 states a channel), bf16
    python tools/bench_kernels.py --all    every size and type

The operators run on the CPU as they would on a GPU, except that their launches are recorded and compiled for sm_80,
sm_90 and gfx942. Instructions are those of one warp in the loop over chunks, times warps, per position and head (or
channel).
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import product

import torch
from kernel_reports import DTYPES, TARGETS, Launch, compile_launch, record, write_table

from mmrnn_kernels.common.triton import plan as common_plan
from mmrnn_kernels.selective_scan.triton import STATE_SIZES
from mmrnn_kernels.selective_scan.triton import launch as scan_launch
from mmrnn_kernels.selective_scan.triton import ops as scan_ops
from mmrnn_kernels.wkv6.triton import HEAD_SIZES, chunk_launch, ops, plan, recurrent_launch
from mmrnn_kernels.wkv7.triton import chunk_launch as chunk_launch7
from mmrnn_kernels.wkv7.triton import ops as ops7
from mmrnn_kernels.wkv7.triton import plan as plan7
from mmrnn_kernels.wkv7.triton import recurrent_launch as recurrent_launch7

BEGIN, END = "<!-- written by tools/bench_kernels.py -->\n", "<!-- end of tools/bench_kernels.py -->\n"
HEADER = """\
| operator | target | K = V, or S | inputs | kernel | warps | registers | spilled | shared | instructions |
|---|---|---|---|---|---|---|---|---|---|"""
OPERATORS = ("wkv6", "wkv5", "wkv7", "selective_scan")
HEADS = 64


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
    instructions: float | None  # per position and head, or channel


def kernel_name(launch: Launch) -> str:
    """Return the name of the kernel with its flags."""
    flags = [flag.removeprefix("STORE_").lower() for flag in ("STORE_STATES", "REVERSE") if launch.options.get(flag)]
    return " ".join([launch.kernel.__name__.removesuffix("_kernel"), *flags])


def launches(operator: str, size: int, type: str, target: str) -> dict[str, Launch]:
    """Record every kernel that sequences of any length need, by name. Decays, the bonus and states are fp32."""
    found = record(chunk_launch, recurrent_launch, chunk_launch7, recurrent_launch7, scan_launch)
    backend = TARGETS[target].backend
    ops.compile_mode = lambda *inputs: common_plan.gpu_mode({x.dtype for x in inputs}, backend, target == "sm_90")
    plan7.compile_mode = lambda *inputs: plan7.gpu_mode({x.dtype for x in inputs}, backend)
    plan.processors = lambda _: 1
    scan_ops.compile_mode = ops.compile_mode
    if operator == "selective_scan":
        call_selective_scan(size, type)
        return {kernel_name(launch): launch for launch in found}
    for length in (8, 32):
        row, state = (1, length, HEADS, size), torch.zeros(1, HEADS, size, size)
        x, w = torch.zeros(row, dtype=DTYPES[type]), torch.zeros(row[2:] if operator == "wkv5" else row)
        if operator == "wkv7":
            op, inputs = ops7, (x, w, x, x, x, x, state, None)
        else:
            op, inputs = ops, (x, x, x, w, torch.zeros(HEADS, size), state, None)
        op.forward(*inputs)
        op.backward(*inputs, x, state)
    return {kernel_name(launch): launch for launch in found}


def call_selective_scan(states: int, type: str) -> None:
    """Call the scan and its gradient. The rates of the channels and their states are fp32."""
    x, b = (torch.zeros(1, 32, width, dtype=DTYPES[type]) for width in (HEADS, states))
    state = torch.zeros(1, HEADS, states)
    inputs = (x, x, state[0], b, b, state, None)
    scan_ops.forward(*inputs)
    scan_ops.backward(*inputs, x, state)


def measure(launch: Launch, operator: str, size: int, type: str, target: str) -> Row:
    """Compile one launch as the operator would."""
    figures, warps = compile_launch(launch, target, specialize_integers=False), launch.options["num_warps"]
    share = warps * launch.grid[1] / launch.options.get("BT", 1) / (HEADS if operator == "selective_scan" else 1)
    instructions = None if figures.instructions is None else figures.instructions * share
    measured = (figures.registers, figures.spilled, figures.shared, instructions)
    return Row(operator, kernel_name(launch), type, size, target, warps, *measured)


def sizes_of(operator: str, every: bool) -> tuple[int, ...]:
    """Return all head or state sizes of an operator, or the usual one."""
    sizes, usual = (STATE_SIZES, 16) if operator == "selective_scan" else (HEAD_SIZES, 64)
    return sizes if every else (usual,)


def form(text: str) -> tuple[int, str]:
    """Read a size and a type from `64:bf16`."""
    size, type = text.split(":")
    return int(size), type


def forms_of(operator: str, options: argparse.Namespace) -> Iterable[tuple[int, str]]:
    """Return the sizes and types that were asked for: the named pairs, else every size with every type."""
    types = options.type or (DTYPES if options.all else ("bf16",))
    sizes = (options.size,) if options.size else sizes_of(operator, options.all)
    return options.forms or product(sizes, types)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Measure all kernels of the operators, targets and forms that were asked for."""
    for operator, target in product(options.operator, options.target):
        for size, type in forms_of(operator, options):
            for launch in launches(operator, size, type, target).values():
                yield measure(launch, operator, size, type, target)


def line(row: Row) -> str:
    """Format a row of the table."""
    count = "" if row.instructions is None else f"{row.instructions:.0f}"
    measured = (row.warps, row.registers, row.spilled, row.shared, count)
    return f"| {' | '.join(map(str, (row.operator, row.target, row.size, row.type, row.kernel, *measured)))} |"


def main() -> None:
    """Write the table, or print its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every size and type")
    parser.add_argument("--json", action="store_true", help="print the rows instead")
    parser.add_argument("--operator", nargs="+", choices=OPERATORS, default=OPERATORS)
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--size", type=int, choices=sorted({*HEAD_SIZES, *STATE_SIZES}))
    parser.add_argument("--type", nargs="+", choices=DTYPES)
    parser.add_argument("--forms", nargs="+", type=form, metavar="SIZE:TYPE", help="these pairs alone")
    options = parser.parse_args()
    found = rows(options)
    if options.json:
        print(json.dumps([asdict(row) | {"line": line(row)} for row in found]))
        return
    write_table(BEGIN, END, HEADER, [*map(line, found)])


if __name__ == "__main__":
    main()
