"""`mmrnn bench`: time this library against other installed libraries."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.cli.options import Parser, natural, one_of, to_path
from mmrnn.config.error import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from mmrnn.bench.timing import BenchConfig, Row

PARTS = ("operator", "prefill", "decode", "training", "tower")


def parser() -> Parser:
    """Parser of `mmrnn bench`."""
    made = Parser(
        "bench",
        "[PART ...] [OPTION ...]",
        """
Time this library against other installed libraries: flash-linear-attention's PyTorch recurrence, the rwkv package,
Llama of transformers with its default and its static cache, timm. One thread, processor time, alternating runs,
medians of the ratios of all rounds. Prints tables; writes bench.json and decode.png (cost over context length).
""",
        """
  mmrnn bench operator decode
  mmrnn bench --quick            checks that everything runs; the times mean nothing
""",
    )
    made.add_argument(
        "parts",
        nargs="*",
        default=[],
        type=one_of(PARTS),
        metavar="PART",
        help=f"{', '.join(PARTS)} (default: all of them)",
    )
    made.add_argument("--quick", action="store_true", help="tiny sizes and few rounds")
    made.add_argument("--threads", type=natural, default=1, metavar="N", help="threads; with more than 1, wall time")
    made.add_argument("--out", type=to_path, default=Path("bench"), metavar="DIR", help="folder of the files written")
    return made


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write.

    Raises:
        ConfigError: wrong usage.
    """
    options = parser().parse(arguments)
    if options.out.exists() and not options.out.is_dir():
        raise ConfigError(f"--out: {options.out} is a file; name a folder")

    import torch
    from rich.console import Console

    from mmrnn.bench.timing import BenchConfig

    config = (
        BenchConfig(quick=True, max_rounds=3, seconds=0.0) if options.quick else BenchConfig(threads=options.threads)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    try:
        for part in options.parts or PARTS:
            found = [*import_module(f"mmrnn.bench.{part}").measure(config)]
            Console().print(table(part, found))
            rows += found
    finally:
        torch.set_num_threads(before)
    written = write(options.out, rows, config)
    for note in config.skipped:
        print(f"skipped: {note}")
    for path in written:
        print(path)


def table(part: str, rows: "Sequence[Row]") -> "Table":
    """Terminal table of one part; ratios are relative to the first row of each case."""
    from rich.table import Table

    shown = Table("case", "name", "ms", "speedup", "of peak", "MB", title=part)
    first: dict[str, str] = {}
    for row in rows:
        base = first.setdefault(row.case, row.name)
        ratio = f"{row.speedup[base]:.2f}" if base in row.speedup else ""
        fraction = "" if row.peak_fraction is None else f"{row.peak_fraction:.0%}"
        size = "" if row.megabytes is None else f"{row.megabytes:.1f} ({row.memory_kind})"
        shown.add_row(row.case if base == row.name else "", row.name, f"{row.seconds * 1e3:.2f}", ratio, fraction, size)
    return shown


def write(folder: Path, rows: "Sequence[Row]", config: "BenchConfig") -> list[Path]:
    """Write bench.json and, where context lengths were measured, the plot.

    Returns:
        The files written.
    """
    import platform

    import torch

    from mmrnn.bench.plots import plot

    folder.mkdir(parents=True, exist_ok=True)
    plots = plot(folder / "decode.png", rows, config)
    facts = {
        "torch": torch.__version__,
        "processor": processor() or platform.machine(),
        "threads": config.threads,
        "quick": config.quick,
        "skipped": config.skipped,
        "rows": [asdict(row) for row in rows],
    }
    path = folder / "bench.json"
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return [path, *plots]


def processor() -> str:
    """Model name of the processor on Linux; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
