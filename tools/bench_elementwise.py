"""Write the table of the elementwise kernels in docs/kernels.md: what they compile to, without a GPU.

    python tools/bench_elementwise.py          bf16
    python tools/bench_elementwise.py --all    every type

The operators run on the CPU as they would on a GPU, except that their launches are recorded and compiled. Instructions
are those of a warp in the loop over positions, times warps, per position and 64 channels, as many as a head has;
kernels without a loop have none.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from kernel_reports import DTYPES, TARGETS, Launch, compile_launch, record, write_table
from torch import Tensor

from mmrnn_kernels.elementwise.triton import gate_ops, lerp_op

BEGIN, END = "<!-- written by tools/bench_elementwise.py -->\n", "<!-- end of tools/bench_elementwise.py -->\n"
HEADER = """\
| operator | form | target | inputs | kernel | registers | spilled | shared | instructions | bytes |
|---|---|---|---|---|---|---|---|---|---|"""
LENGTH, HEADS, SIZE = 1024, 32, 64


@dataclass(frozen=True)
class Row:
    """One kernel in one of its forms, and what it compiled to."""

    operator: str
    form: str
    target: str
    type: str
    kernel: str
    registers: int
    spilled: int  # bytes
    shared: int  # bytes
    instructions: float | None  # per position and 64 channels
    bytes: float  # per position and 64 channels: all arguments of the kernel, each once


def channels(launch: Launch) -> int:
    """Return the channels of a program in every iteration of its loop; 0 if it has no loop."""
    return launch.options.get("BD", 0) or launch.options.get("BH", 0) * launch.options.get("BV", 0)


def launches(operator: str, mixtures: int, dtype: torch.dtype) -> list[Launch]:
    """Record the forward and the backward kernel of an operator; parameters are fp32."""
    found = record(gate_ops, lerp_op)
    row = torch.zeros(1, LENGTH, HEADS * SIZE, dtype=dtype)
    parameter = torch.zeros(HEADS * SIZE)
    if operator == "lerp":
        offsets = row.expand(mixtures, *row.shape) if mixtures == 5 else None
        inputs = (row, row[:, 0], parameter.expand(mixtures, -1), offsets, None)
        lerp_op.forward(*inputs)
        lerp_op.backward(*inputs, [row] * mixtures)
    else:
        inputs = {
            "relu_square": (row,),
            "sigmoid_gate": (row, row),
            "norm_gate": (row.view(1, LENGTH, HEADS, SIZE), row, parameter, parameter, 64e-5),
        }[operator]
        getattr(gate_ops, operator)(*inputs)
        getattr(gate_ops, f"{operator}_backward")(*inputs, row)
    return found


def measure(launch: Launch, operator: str, form: str, type: str, target: str) -> Row:
    """Compile one launch as the operator would."""
    figures = compile_launch(launch, target, specialize_integers=True)
    per_program, count = channels(launch), None
    if per_program and figures.instructions is not None:
        count = figures.instructions * launch.options["num_warps"] * SIZE / per_program
    total = sum(x.nbytes for x in launch.arguments if isinstance(x, Tensor)) / (LENGTH * HEADS)
    measured = (figures.registers, figures.spilled, figures.shared, count, total)
    return Row(operator, form, target, type, launch.kernel.__name__.removesuffix("_kernel"), *measured)


def rows(targets: list[str], types: tuple[str, ...] = ("bf16",)) -> Iterator[Row]:
    """Measure all kernels for these targets and types."""
    forms = [("lerp", 5, "n = 5, offsets"), ("lerp", 4, "n = 4"), ("norm_gate", 0, "V = 64")]
    for operator, mixtures, form in [*forms, ("relu_square", 0, ""), ("sigmoid_gate", 0, "")]:
        for target in targets:
            for type in types:
                for launch in launches(operator, mixtures, DTYPES[type]):
                    yield measure(launch, operator, form, type, target)


def line(row: Row) -> str:
    """Format a row of the table."""
    count = "" if row.instructions is None else f"{row.instructions:.0f}"
    measured = (row.registers, row.spilled, row.shared, count, f"{row.bytes:.0f}")
    return f"| {' | '.join(map(str, (row.operator, row.form, row.target, row.type, row.kernel, *measured)))} |"


def main() -> None:
    """Write the table, or print its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="TARGET", choices=TARGETS, help="print the rows of one target, every type")
    parser.add_argument("--all", action="store_true", help="every type")
    options = parser.parse_args()
    if options.json:
        print(json.dumps([asdict(row) | {"line": line(row)} for row in rows([options.json], tuple(DTYPES))]))
        return
    types = tuple(DTYPES) if options.all else ("bf16",)
    write_table(BEGIN, END, HEADER, [*map(line, rows(list(TARGETS), types))])


if __name__ == "__main__":
    main()
