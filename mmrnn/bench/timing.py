"""Timing of contenders in alternating runs, so that a slow phase of the machine hits all of them alike.

With one thread the clock is the processor time of this process, which other processes disturb least; with several
threads or on an accelerator it is wall time, on a CUDA GPU the time between two events of its stream. The peak
throughput of the machine is measured in the same run.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from mmrnn.config.device import device_module

Workload = Callable[[], object]
T = TypeVar("T")
CPU = torch.device("cpu")


class Unavailable(Exception):
    """A contender cannot run here; the message says why."""


def require(package: str, install: str | None = None) -> None:
    """Check that a package is installed.

    Args:
        install: its name on PyPI; None: the same.

    Raises:
        Unavailable: it is not installed.
    """
    if find_spec(package) is None:
        raise Unavailable(f"{package} is not installed (pip install {install or package})")


@dataclass(frozen=True)
class BenchConfig:
    """Effort of a benchmark.

    Attributes:
        quick: small sizes; the times mean nothing.
        min_rounds: rounds of every case.
        max_rounds: no more rounds than these are run.
        seconds: after `min_rounds`, rounds are added until so much time has passed.
        threads: with one thread processor time is measured, with more wall time.
        device: that everything runs on.
        fps: frames a second of a video.
        precision: of the models of `headline` and `preset`.
        overrides: that choose the preset.
        dirs: further folders of cards.
        prompts: lengths of the prompts of a preset, in positions.
        skipped: name and reason of every contender that could not run.
    """

    quick: bool = False
    min_rounds: int = 3
    max_rounds: int = 41
    seconds: float = 20.0
    threads: int = 1
    device: torch.device = CPU
    fps: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    overrides: tuple[str, ...] = ()
    dirs: tuple[Path, ...] = ()
    prompts: tuple[int, ...] = (1024, 4096)
    skipped: list[str] = field(default_factory=list)

    @property
    def on_cpu(self) -> bool:
        """True where nothing runs on an accelerator."""
        return self.device.type == "cpu"

    def try_make(self, name: str, make: Callable[[], T]) -> T | None:
        """Return the result of `make`, or None where it raises `Unavailable` or a device has too little memory, noted
        in `skipped`.
        """
        try:
            return make()
        except (Unavailable, torch.OutOfMemoryError) as reason:
            note = f"{name}: {reason}"
            if note not in self.skipped:
                self.skipped.append(note)
            return None

    def try_add(self, contenders: dict[str, Workload], name: str, make: Callable[[], Workload]) -> None:
        """Add the workload that `make` returns to `contenders`, unless it raises `Unavailable`."""
        workload = self.try_make(name, make)
        if workload is not None:
            contenders[name] = workload

    def time_once(self, workload: Workload) -> float:
        """Run a workload and return its seconds: processor time, wall time with several threads or on an accelerator,
        or time on a CUDA GPU.
        """
        if self.device.type == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            workload()
            stop.record()
            stop.synchronize()
            return start.elapsed_time(stop) / 1e3
        clock = time.process_time if self.on_cpu and self.threads == 1 else time.perf_counter
        wait = device_module(self.device).synchronize
        wait()
        begin = clock()
        workload()
        wait()
        return clock() - begin


@dataclass(frozen=True)
class Row:
    """One row of the result table.

    Attributes:
        part: benchmark that it belongs to.
        case: input size, dtype and direction.
        name: contender.
        seconds: median over the rounds.
        speedup: median over the rounds of (time of another contender / time of this one), by the name of the other.
        peak_fraction: throughput over the peak of the machine (matrix products or memory), where one bounds it.
        megabytes: memory in 1e6 bytes, where it is measured.
        memory_kind: object that `megabytes` is the size of.
        context: number of tokens before, where the cases differ in it.
        minutes: of video before, where the cases differ in it; then `seconds` is the time of a frame.
        process_megabytes: by how much the peak of a process rose, where it is measured beside `megabytes`.
        computed: from bytes, FLOPs and a data sheet: nothing was measured.
    """

    part: str
    case: str
    name: str
    seconds: float
    speedup: Mapping[str, float]
    peak_fraction: float | None = None
    megabytes: float | None = None
    memory_kind: str = ""
    context: int | None = None
    minutes: float | None = None
    process_megabytes: float | None = None
    computed: bool = False


def compare(
    part: str, case: str, contenders: Mapping[str, Workload], config: BenchConfig, **fields: Mapping[str, Any]
) -> list[Row]:
    """Time the contenders in alternating runs, after one warm-up run each.

    Args:
        fields: further fields of the rows, each by the name of the contender.
    """
    for workload in contenders.values():
        workload()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    started, rounds = time.perf_counter(), 0
    while rounds < config.min_rounds or (rounds < config.max_rounds and time.perf_counter() - started < config.seconds):
        for name, workload in contenders.items():
            times[name].append(config.time_once(workload))
        rounds += 1
    return [
        Row(
            part,
            case,
            name,
            median(own),
            {other: median_ratio(times[other], own) for other in times if other != name},
            **{key: values[name] for key, values in fields.items() if name in values},
        )
        for name, own in times.items()
    ]


def median_ratio(times: list[float], reference: list[float]) -> float:
    """Return the median over the rounds of the ratio of two times."""
    return median(a / max(b, 1e-9) for a, b in zip(times, reference, strict=True))


@dataclass(frozen=True)
class Peaks:
    """Peak throughput of the accelerator, or of this machine with the given number of threads.

    Attributes:
        fp32: operations per second of fp32 matrix products.
        bf16: operations per second of bf16 matrix products.
        bandwidth: bytes per second read from memory.
    """

    fp32: float
    bf16: float
    bandwidth: float

    def of(self, dtype: str) -> float:
        """Return that of matrix products in `fp32` or `bf16`."""
        return self.fp32 if dtype == "fp32" else self.bf16

    @classmethod
    def measure(cls, config: BenchConfig) -> "Peaks":
        """Time large matrix products, and reads of 256 MB (on an accelerator 1 GB)."""
        from mmrnn_kernels import decode_step

        size = 256 if config.quick else 1024 if config.on_cpu else 8192
        flops = []
        for dtype in (torch.float32, torch.bfloat16):
            x, w = (torch.randn(size, size, device=config.device).to(dtype) for _ in range(2))
            flops.append(2 * size**3 / best_time(lambda x=x, w=w: nn.functional.linear(x, w), config))
        memory = torch.ones(2**20 if config.quick else 2**26 if config.on_cpu else 2**28, device=config.device)
        reads = [lambda: memory.sum()]
        if config.on_cpu and decode_step.unavailable_reason() is None:
            matrix, row = memory.view(-1, 1024), torch.ones(1, 1024)
            reads.append(lambda: decode_step.few_rows_linear(row, matrix))
        return cls(*flops, memory.nbytes / min(best_time(read, config) for read in reads))


def best_time(workload: Workload, config: BenchConfig, rounds: int = 9) -> float:
    """Return the shortest of several runs in seconds, after one warm-up run."""
    workload()
    return max(min(config.time_once(workload) for _ in range(rounds)), 1e-9)
