"""What the Triton kernels of the elementwise neighbours compile to: writes their table in docs/kernels.md.

    python benchmarks/mix.py          bf16
    python benchmarks/mix.py --all    every type

The operators run on the CPU as they would on a GPU, but for their launches, which are written down and compiled as
kernels.py does it. Instructions are those of a warp in the loop over positions, times warps, per position and 64
channels, as many as a head has; kernels without a loop have none.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from triton.compiler import ASTSource

from kernels import PAGE, TARGETS, TYPES, figures
from mmrnn_kernels.mix.triton import gates, shift

BEGIN, END = "<!-- written by benchmarks/mix.py -->\n", "<!-- until here benchmarks/mix.py -->\n"
HEADER = """\
| operator | form | target | inputs | kernel | registers | spilled | shared | instructions | bytes |
|---|---|---|---|---|---|---|---|---|---|"""
LENGTH, HEADS, SIZE = 1024, 32, 64


@dataclass(frozen=True)
class Launch:
    """What a kernel is given, and what it is compiled for."""

    kernel: Any
    given: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def channels(self) -> int:
        """Of a program, in every turn of the loop; 0 where there is none."""
        return self.options.get("BD", 0) or self.options.get("BH", 0) * self.options.get("BV", 0)


@dataclass(frozen=True)
class Recorder:
    """In place of a kernel."""

    kernel: Any
    launches: list[Launch]

    def __getitem__(self, grid):
        return lambda *given, **options: self.launches.append(Launch(self.kernel, given, options))


@dataclass(frozen=True)
class Row:
    operator: str
    form: str
    target: str
    type: str
    kernel: str
    registers: int
    spilled: int  # bytes
    shared: int  # bytes
    instructions: float | None  # per position and 64 channels
    bytes: float  # per position and 64 channels: all that the kernel is given, once


def launches(operator: str, mixtures: int, dtype: torch.dtype) -> list[Launch]:
    """The forward and the backward kernel as the operator launches them; parameters are fp32."""
    found: list[Launch] = []
    for module in (gates, shift):
        for name, value in list(vars(module).items()):
            if isinstance(value, triton.JITFunction | Recorder):
                setattr(module, name, Recorder(value.kernel if isinstance(value, Recorder) else value, found))
    row = torch.zeros(1, LENGTH, HEADS * SIZE, dtype=dtype)
    parameter = torch.zeros(HEADS * SIZE)
    if operator == "lerp":
        offsets = row.expand(mixtures, *row.shape) if mixtures == 5 else None
        inputs = (row, row[:, 0], parameter.expand(mixtures, -1), offsets, None)
        shift.forward(*inputs)
        shift.backward(*inputs, [row] * mixtures)
    else:
        inputs = {
            "relu_square": (row,),
            "sigmoid_gate": (row, row),
            "norm_gate": (row.view(1, LENGTH, HEADS, SIZE), row, parameter, parameter, 64e-5),
        }[operator]
        getattr(gates, operator)(*inputs)
        getattr(gates, f"{operator}_backward")(*inputs, row)
    return found


def measure(launch: Launch, operator: str, form: str, type: str, target: str) -> Row:
    names = launch.kernel.arg_names
    given = dict(zip(names, launch.given, strict=False))
    known = {name: x for name, x in given.items() if x is None} | launch.options
    options = {name: known.pop(name) for name in ("num_warps", "num_stages") if name in known}
    signature = {name: "constexpr" if name in known else kind(given[name]) for name in names}
    # What a launch finds out about its arguments: whether they are multiples of 16.
    aligned = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name, x in given.items()
        if isinstance(x, Tensor) or (isinstance(x, int) and x % 16 == 0)
    }
    source = ASTSource(launch.kernel, signature, constexprs=known, attrs=aligned)
    built = triton.compile(source, target=TARGETS[target], options=options)
    warps = options["num_warps"]
    *measured, count = figures(built, warps * SIZE / launch.channels if launch.channels else 0)
    total = sum(x.nbytes for x in launch.given if isinstance(x, Tensor)) / (LENGTH * HEADS)
    return Row(operator, form, target, type, launch.kernel.__name__, *measured, count or None, total)


def kind(x: Tensor | float) -> str:
    if isinstance(x, int):
        return "i32"
    if isinstance(x, float):
        return "fp32"
    return f"*{dict(zip(TYPES.values(), TYPES, strict=True))[x.dtype]}"


def rows(targets: list[str], types: tuple[str, ...] = ("bf16",)) -> Iterator[Row]:
    forms = [("lerp", 5, "n = 5, offsets"), ("lerp", 4, "n = 4"), ("norm_gate", 0, "V = 64")]
    for operator, mixtures, form in [*forms, ("relu_square", 0, ""), ("sigmoid_gate", 0, "")]:
        for target in targets:
            for type in types:
                for launch in launches(operator, mixtures, TYPES[type]):
                    yield measure(launch, operator, form, type, target)


def line(row: Row) -> str:
    count = "" if row.instructions is None else f"{row.instructions:.0f}"
    measured = (row.registers, row.spilled, row.shared, count, f"{row.bytes:.0f}")
    return f"| {' | '.join(map(str, (row.operator, row.form, row.target, row.type, row.kernel, *measured)))} |"


def write(every: bool) -> None:
    """The table into the page."""
    before, rest = PAGE.read_text().split(BEGIN)
    types = tuple(TYPES) if every else ("bf16",)
    table = [f"Triton {triton.__version__}.\n", HEADER, *map(line, rows(list(TARGETS), types))]
    PAGE.write_text(before + BEGIN + "\n".join(table) + "\n" + END + rest.split(END)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="TARGET", choices=TARGETS, help="print the rows of one target, every type")
    parser.add_argument("--all", action="store_true", help="every type")
    options = parser.parse_args()
    if options.json:
        print(json.dumps([asdict(row) | {"line": line(row)} for row in rows([options.json], tuple(TYPES))]))
        return
    write(options.all)


if __name__ == "__main__":
    main()
