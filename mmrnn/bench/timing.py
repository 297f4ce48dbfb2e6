"""How times are taken: in turn, so that every rival meets the same machine, and compared round by round.

With one thread the clock is the processor time of this process, which other tenants of a machine disturb least; with
several it is the clock on the wall. What can be expected at best is measured in the same run.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from statistics import median
from typing import Any, TypeVar

import torch
from torch import nn

Work = Callable[[], object]
Made = TypeVar("Made")


class Missing(Exception):
    """What cannot be measured here, and why: it is left out by name."""


def need(package: str, install: str | None = None) -> None:
    """
    Raises:
        Missing: the package is not installed.
    """
    if find_spec(package) is None:
        raise Missing(f"{package} is not installed (pip install {install or package})")


@dataclass(frozen=True)
class BenchConfig:
    """How much is measured: small sizes if `quick`, rounds until `seconds` are over, but at least `rounds`."""

    quick: bool = False
    rounds: int = 3
    most: int = 41
    seconds: float = 20.0
    threads: int = 1
    left_out: list[str] = field(default_factory=list)

    def model(self, name: str, make: Callable[[], Made]) -> Made | None:
        """What `make` makes, or None and a note why it is not there."""
        try:
            return make()
        except Missing as reason:
            note = f"{name}: {reason}"
            if note not in self.left_out:
                self.left_out.append(note)
            return None

    def offer(self, sides: dict[str, Work], name: str, make: Callable[[], Work]) -> None:
        """Add a rival, if it is there."""
        work = self.model(name, make)
        if work is not None:
            sides[name] = work


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        seconds: median of the rounds.
        times: rival -> how many times as fast as that rival this is, the median of the ratios of each round.
        share: of what the machine can do at best (matrix products or memory), where that bounds it.
        megabytes: of state, of cache, or of the peak; `what` says of what.
        context: tokens that were read before, where that is what is compared.
    """

    part: str
    case: str
    who: str
    seconds: float
    times: Mapping[str, float]
    share: float | None = None
    megabytes: float | None = None
    what: str = ""
    context: int | None = None


def compare(
    part: str, case: str, sides: Mapping[str, Work], effort: BenchConfig, **facts: Mapping[str, Any]
) -> list[Row]:
    """Time the sides in turn; `facts` are further fields of a row by the name of its side."""
    clock = time.process_time if effort.threads == 1 else time.perf_counter
    for work in sides.values():
        work()
    spent: dict[str, list[float]] = {name: [] for name in sides}
    started, rounds = time.perf_counter(), 0
    while rounds < effort.rounds or (rounds < effort.most and time.perf_counter() - started < effort.seconds):
        for name, work in sides.items():
            start = clock()
            work()
            spent[name].append(clock() - start)
        rounds += 1
    return [
        Row(
            part,
            case,
            name,
            median(own),
            {
                other: median(b / max(a, 1e-9) for a, b in zip(own, theirs, strict=True))
                for other, theirs in spent.items()
                if other != name
            },
            **{key: values[name] for key, values in facts.items() if name in values},
        )
        for name, own in spent.items()
    ]


@dataclass(frozen=True)
class Peaks:
    """What the threads of this machine do at best: products a second in fp32 and bf16, bytes a second."""

    fp32: float
    bf16: float
    stream: float

    @classmethod
    def measure(cls, effort: BenchConfig) -> "Peaks":
        from mmrnn_kernels import decode_step

        size = 256 if effort.quick else 1024
        flops = []
        for dtype in (torch.float32, torch.bfloat16):
            x, w = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
            flops.append(2 * size**3 / shortest(lambda x=x, w=w: nn.functional.linear(x, w), effort))
        memory = torch.ones(2**20 if effort.quick else 2**26)
        reads = [lambda: memory.sum()]
        if decode_step.unavailable_reason() is None:
            matrix, row = memory.view(-1, 1024), torch.ones(1, 1024)
            reads.append(lambda: decode_step.few_rows_linear(row, matrix))
        return cls(*flops, memory.nbytes / min(shortest(read, effort) for read in reads))


def shortest(work: Work, effort: BenchConfig, rounds: int = 9) -> float:
    clock = time.process_time if effort.threads == 1 else time.perf_counter
    work()
    times = []
    for _ in range(rounds):
        start = clock()
        work()
        times.append(clock() - start)
    return max(min(times), 1e-9)


def nbytes(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())
